/** Runs a program to its end with bounded output, for the indexer outside the guest. */
import { spawn } from 'node:child_process'
import type { ProgramResult, RunProgram } from '../layer/indexer.ts'

const MAX_OUTPUT_BYTES = 64 * 1024

export const runProgram: RunProgram = (path, args, { timeoutMs }) =>
  new Promise<ProgramResult>((resolve) => {
    const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGTERM' })
    const stdout = collect(child.stdout)
    const stderr = collect(child.stderr)
    // "error" without "close" means that it did not start: what a shell would answer.
    child.on('error', (error) => resolve({ code: 127, stdout: stdout(), stderr: Buffer.from(error.message) }))
    child.on('close', (code) => resolve({ code: code ?? 137, stdout: stdout(), stderr: stderr() }))
  })

/** Keeps the last bytes; what a program says at its end is what matters. */
function collect(stream: NodeJS.ReadableStream): () => Uint8Array {
  let kept = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-MAX_OUTPUT_BYTES)
  })
  return () => kept
}
