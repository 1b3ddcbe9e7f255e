/** A GET, its body parsed where it is JSON. */
export async function get(url: string, headers: Record<string, string> = {}) {
  const response = await fetch(url, { headers: { connection: 'close', ...headers } });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json');
  // biome-ignore lint/suspicious/noExplicitAny: whatever the application answers
  return { status: response.status, body: (isJson ? JSON.parse(text) : text) as any };
}
