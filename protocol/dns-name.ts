/** Names of hosts as certificates carry them (RFC 1123 section 2.1, RFC 5280 section 4.2.1.6): lower case, no wildcard. */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const MAX_NAME = 253

/** False for addresses too: a last label of digits alone would be read as one. */
export function isDnsName(text: string): boolean {
  const labels = text.split('.')
  return text.length <= MAX_NAME && labels.every((label) => LABEL.test(label)) && !/^\d+$/.test(labels.at(-1) ?? '')
}
