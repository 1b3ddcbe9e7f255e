/** A text that came from outside, as it may stand in a log line: one line, printable, of bounded length. */
export function printable(text: string, mostCharacters = 200): string {
  const cut = text.length > mostCharacters ? `${text.slice(0, mostCharacters)}...` : text;
  return cut.replace(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Everything but printable ASCII; of pairs, each half. */
const UNPRINTABLE = /[^\x20-\x7e]/g;

/** Enough of a user id to recognise it, not enough to be one. */
export function shortened(userId: string): string {
  const most = 8;
  return userId.length > most ? `${printable(userId.slice(0, most))}...` : printable(userId);
}
