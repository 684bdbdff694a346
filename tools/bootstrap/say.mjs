/** A problem the user can do something about. */
export class BootstrapError extends Error {
  constructor(message, hint = '', exitCode = 3) {
    super(message)
    this.hint = hint
    this.exitCode = exitCode
  }
}

export function say(text) {
  process.stderr.write(`caisson: ${text}\n`)
}
