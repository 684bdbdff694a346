/** An administrator's desk: a running verifier, files, and commands as they are typed. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { Output } from '#cli/output'
import { type Site, startSite } from './site.ts'

const MAIN = new URL('../../../cli/main.ts', import.meta.url).pathname

/** What a command prints. */
export class Captured extends Output {
  text = ''

  override write(text: string | Uint8Array): void {
    this.text += typeof text === 'string' ? text : Buffer.from(text).toString()
  }
}

export interface Desk {
  readonly site: Site
  /** A file of the administrator. */
  readonly file: (name: string, content?: string) => string
  /** What the command prints. @param words what names another verifier or key counts in place of the usual ones */
  readonly caisson: (spec: CommandSpec, ...words: readonly string[]) => Promise<string>
  /** Its exit code, too. */
  readonly exitOf: (spec: CommandSpec, ...words: readonly string[]) => Promise<{ code: number; text: string }>
  /** What the program itself prints as its error. */
  readonly printed: (...words: readonly string[]) => Promise<{ code: number | null; stderr: string }>
}

export async function deskAt(t: ExecutionContext, config: Partial<VerifierConfig> = {}): Promise<Desk> {
  const site = await startSite(t, config)
  const directory = mkdtempSync(join(tmpdir(), 'caisson-desk-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const file = (name: string, content?: string): string => {
    const path = join(directory, name)
    if (content !== undefined) writeFileSync(path, content)
    return path
  }
  const reach = ['--url', site.verifier.url, '--ca', file('ca.pem', site.caPem)]
  const key = ['--admin-key', file('admin.key', JSON.stringify(site.adminKey.privateJwk))]
  const exitOf = async (spec: CommandSpec, ...words: readonly string[]): Promise<{ code: number; text: string }> => {
    const out = new Captured(words.includes('--json'))
    const code = await spec.run(parseInvocation(spec, [...reach, ...key, ...words], out))
    return { code, text: out.text }
  }
  const caisson = async (spec: CommandSpec, ...words: readonly string[]): Promise<string> => {
    const { code, text } = await exitOf(spec, ...words)
    t.is(code, 0)
    return text
  }
  const printed = async (...words: readonly string[]): Promise<{ code: number | null; stderr: string }> => {
    const child = spawn(process.execPath, [MAIN, ...words, ...reach, ...key], { stdio: ['ignore', 'ignore', 'pipe'] })
    const chunks: string[] = []
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, stderr: chunks.join('') }
  }
  return { site, file, caisson, exitOf, printed }
}
