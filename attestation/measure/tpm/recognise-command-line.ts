/**
 * Evidence holds digests of the kernel command line, not its text. Which line was it? Tried are the lines of all registered
 * guests, and the predicted one with a token left out, or with one of those added that people add to look around.
 */
export interface RecogniseInput {
  readonly predicted: string
  readonly known: readonly string[]
  /** Whether the evidence holds the digest of this line. */
  readonly isMeasured: (commandLine: string) => boolean
}

/** What people add to a guest that they want to look into. */
const OFTEN_ADDED: readonly string[] = [
  'debug',
  'quiet',
  'single',
  'init=/bin/sh',
  'rdinit=/bin/sh',
  'console=ttyS0',
  'console=hvc0',
  'systemd.debug_shell',
  'agent.log=debug',
  'agent.debug_console',
  'nokaslr',
  'loglevel=7',
  'loglevel=8',
  'earlyprintk=ttyS0',
]
const MAX_TOKENS = 256

/** A line whose digest the evidence holds; undefined when none of those tried is it. */
export function recogniseCommandLine({ predicted, known, isMeasured }: RecogniseInput): string | undefined {
  return candidates(predicted, known).find((line) => isLine(line) && isMeasured(line))
}

/** "the kernel command line differs at token 7: predicted "a", booted "b"" */
export function differingToken(predicted: string, booted: string): string {
  const [wanted, got] = [predicted.split(' '), booted.split(' ')]
  const index = wanted.findIndex((token, position) => got[position] !== token)
  const at = index === -1 ? wanted.length : index
  const show = (token: string | undefined): string => (token === undefined ? 'nothing' : JSON.stringify(token))
  return `the kernel command line differs at token ${at + 1}: predicted ${show(wanted[at])}, booted ${show(got[at])}`
}

function candidates(predicted: string, known: readonly string[]): string[] {
  const tokens = predicted.split(' ').slice(0, MAX_TOKENS)
  const without = tokens.map((_, left) => tokens.filter((_token, index) => index !== left).join(' '))
  const added = OFTEN_ADDED.flatMap((token) => [`${predicted} ${token}`, `${token} ${predicted}`])
  return [...known, ...without, ...added]
}

/** Others cannot be load options, see `loadOptions`. */
function isLine(line: string): boolean {
  return /^[\x20-\x7e]{0,2046}$/.test(line) && !/(?:^|\s)vga=/.test(line)
}
