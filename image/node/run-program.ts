/** Runs a program to its end with bounded output, for the indexer outside the guest. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { ProgramResult, RunProgram } from '../layer/indexer.ts'

const MAX_OUTPUT_BYTES = 64 * 1024

export const runProgram: RunProgram = (path, args, { timeoutMs }) =>
  new Promise<ProgramResult>((resolve) => {
    const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGTERM' })
    const stdout = collect(child.stdout)
    const stderr = collect(child.stderr)
    // "error" without "close" means that it did not start: what a shell would answer.
    child.on('error', (error) => resolve({ code: 127, stdout: stdout(), stderr: Buffer.from(error.message) }))
    child.on('close', (code, signal) => resolve({ code: code ?? codeOf(signal), stdout: stdout(), stderr: stderr() }))
  })

/** As a shell says it: 128 and the number. */
function codeOf(signal: NodeJS.Signals | null): number {
  return 128 + (signal === null ? 9 : constants.signals[signal])
}

/** Keeps the last bytes; what a program says at its end is what matters. */
function collect(stream: NodeJS.ReadableStream): () => Uint8Array {
  let kept = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-MAX_OUTPUT_BYTES)
  })
  return () => kept
}
