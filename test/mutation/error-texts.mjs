/**
 * Leaves the words of error messages alone: they are for people, and a test that repeats a sentence letter for letter
 * says nothing about behaviour. Codes, reasons, close codes and names of events are no such words, and are mutated.
 */
export const strykerPlugins = [
  {
    kind: 'Ignore',
    name: 'error-texts',
    value: {
      shouldIgnore(path) {
        if (!path.isStringLiteral() && !path.isTemplateLiteral()) return undefined;
        const message = path.findParent(
          (parent) =>
            (parent.isNewExpression() && /Error$/.test(parent.node.callee.name ?? '')) ||
            (parent.isCallExpression() && parent.node.callee.type === 'Super'),
        );
        if (!message) return undefined;
        // Only the message itself, not what is computed inside of an argument.
        let inner = path;
        while (inner.parentPath !== message) {
          inner = inner.parentPath;
          if (!inner.isConditionalExpression() && !inner.isBinaryExpression()) return undefined;
        }
        return 'the words of an error message';
      },
    },
  },
];
