import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { explain } from '#cli/commands/explain'
import { initdataKeygen } from '#cli/commands/initdata-keygen'
import { Output } from '#cli/output'
import { MAX_STORED_REASONS, storeReasons } from '#cli/sealed-reasons'
import type { SealedReason } from '#protocol/gen/agent_pb'
import { sealReason } from '#protocol/sealed-reason'
import { parseTenantKey } from '#protocol/tenant-key'

class Recorded extends Output {
  text = ''

  override write(text: string | Uint8Array): void {
    this.text += typeof text === 'string' ? text : new TextDecoder().decode(text)
  }
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'caisson-reasons-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

async function run(spec: CommandSpec, ...words: string[]): Promise<string> {
  const out = new Recorded(false)
  await spec.run(parseInvocation(spec, words, out))
  return out.text
}

function reason(sequence: number, correlationId: string, sealed: Uint8Array = Buffer.from('x')): SealedReason {
  const entry = { sequence: BigInt(sequence), correlationId, code: 'ERR_TEST', sealed: Uint8Array.from(sealed) }
  return { $typeName: 'caisson.agent.v1.SealedReason', ...entry }
}

test('a sealed reason is opened by the key of `initdata keygen`, and shows field, allowed and asked', async (t) => {
  const path = folder(t)
  await run(initdataKeygen, '--output', join(path, 'tenant'))
  t.is(statSync(join(path, 'tenant.jwk')).mode & 0o777, 0o600)
  const key = parseTenantKey(readFileSync(join(path, 'tenant.pub.jwk'), 'utf8').trim())
  const sealed = await sealReason(key, {
    correlationId: '0123456789abcdef',
    at: '2026-01-02T03:04:05.000Z',
    code: 'ERR_POLICY_DENIED',
    subject: 'CreateContainer \u001b[2Jweb',
    message: 'args are not allowed',
    denial: { field: 'args', allowed: 'nginx -v', asked: '/bin/sh' },
  })
  const stored = await storeReasons(
    { getReasons: async (after) => (after === 0n ? [reason(1, 'a'.repeat(16), sealed)] : []) },
    path,
  )
  const file = stored.get('a'.repeat(16)) ?? ''
  const text = await run(explain, '--identity', join(path, 'tenant.jwk'), file)
  t.regex(text, /ERR_POLICY_DENIED: args are not allowed/)
  t.regex(text, /field: +args\n +allowed: nginx -v\n +asked: +\/bin\/sh\n +remedy: +\S/)
  t.false(text.includes('\u001b'), 'nothing in it steers the terminal')
  await t.throwsAsync(run(initdataKeygen, '--output', join(path, 'tenant')), { code: 'ERR_FILE_EXISTS' })
})

test('the host keeps a bounded number of reasons, under names that no guest chooses freely', async (t) => {
  const path = folder(t)
  const count = MAX_STORED_REASONS + 40
  const all = Array.from({ length: count }, (_, index) => reason(index + 1, (index + 1).toString(16).padStart(16, '0')))
  const asks: bigint[] = []
  const getReasons = async (after: bigint): Promise<SealedReason[]> => {
    asks.push(after)
    return all.filter(({ sequence }) => sequence > after).slice(0, 16)
  }
  await storeReasons({ getReasons }, path)
  t.is(readdirSync(join(path, 'reasons')).length, MAX_STORED_REASONS)
  t.true(asks.length <= 64)
  const hostile = [
    reason(1, '../../../../etc/x'),
    reason(2, ''),
    reason(3, 'b'.repeat(16), new Uint8Array(1024 * 1024)),
  ]
  t.is((await storeReasons({ getReasons: async (after) => (after === 0n ? hostile : []) }, folder(t))).size, 0)
})

test('a guest that gives the same answer for ever is asked no more', async (t) => {
  let asks = 0
  const getReasons = async (): Promise<SealedReason[]> => {
    asks++
    return [reason(1, 'c'.repeat(16))]
  }
  t.is((await storeReasons({ getReasons }, folder(t))).size, 1)
  t.is(asks, 2)
})
