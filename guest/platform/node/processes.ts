/** `Processes` on Node: guest tools with bounded output and a deadline. */
import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Processes } from '../platform.ts'

const MAX_OUTPUT_BYTES = 64 * 1024
const DEFAULT_TIMEOUT_MS = 60_000
/** Tools see this and nothing of the agent's environment. */
export const TOOL_ENVIRONMENT: Readonly<Record<string, string>> = { PATH: '/usr/bin:/usr/sbin', LANG: 'C' }

export const nodeProcesses: Processes = {
  run: (path, args, { input, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = {}) =>
    new Promise((resolve, reject) => {
      const child = spawn(path, args, { env: TOOL_ENVIRONMENT, stdio: ['pipe', 'pipe', 'pipe'], cwd: '/' })
      const stdout = boundedOutput(child.stdout)
      const stderr = boundedOutput(child.stderr)
      let problem: string | undefined
      const stop = (why: string) => {
        problem ??= why
        child.kill('SIGKILL')
      }
      const timer = setTimeout(() => stop(`took longer than ${timeoutMs} ms`), timeoutMs)
      const abort = () => stop('was cancelled')
      signal?.addEventListener('abort', abort, { once: true })
      child.on('error', (error) => {
        problem ??= errorText(error)
      })
      // A tool that does not read its input to the end is judged by its exit code.
      child.stdin.on('error', () => undefined)
      child.stdin.end(input)
      child.on('close', (code) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
        if (problem !== undefined) reject(new UnavailableError('ERR_TOOL', `${path} ${problem}`))
        else resolve({ code: code ?? 255, stdout: stdout(), stderr: stderr() })
      })
    }),
}

function boundedOutput(stream: Readable): () => Uint8Array {
  const chunks: Buffer[] = []
  let total = 0
  stream.on('data', (chunk: Buffer) => {
    if (total >= MAX_OUTPUT_BYTES) return
    chunks.push(chunk.subarray(0, MAX_OUTPUT_BYTES - total))
    total += chunk.byteLength
  })
  return () => Buffer.concat(chunks)
}
