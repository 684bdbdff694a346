/** An administrator's desk: a running verifier, files, and commands as they are typed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { Output } from '#cli/output'
import { type Site, startSite } from './site.ts'

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
  /** What the command prints. @param words without those that name verifier and key */
  readonly caisson: (spec: CommandSpec, ...words: readonly string[]) => Promise<string>
  /** Its exit code, too. */
  readonly exitOf: (spec: CommandSpec, ...words: readonly string[]) => Promise<{ code: number; text: string }>
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
    const code = await spec.run(parseInvocation(spec, [...words, ...reach, ...key], out))
    return { code, text: out.text }
  }
  const caisson = async (spec: CommandSpec, ...words: readonly string[]): Promise<string> => {
    const { code, text } = await exitOf(spec, ...words)
    t.is(code, 0)
    return text
  }
  return { site, file, caisson, exitOf }
}
