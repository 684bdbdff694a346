/**
 * Sealed reasons of refusals, kept for the tenant: `<state>/reasons/<correlation id>.jwe`. The host cannot read them; the
 * guest that they come from is not believed either, so names and sizes are checked and their number is bounded.
 */
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type AgentClient, GuestRefusalError } from '#host-shim/pod/agent-client'
import { MAX_SEALED_REASON_BYTES } from '#protocol/sealed-reason'
import type { Output } from './output.ts'

/** Files kept; the oldest go first. */
export const MAX_STORED_REASONS = 512
/** Answers that are asked for after one refusal; each holds several reasons. */
const MAX_ANSWERS = 64

export type StoredReasons = ReadonlyMap<string, string>

/** Correlation id → file of every reason that the guest hands out. Empty when the tenant named no key. */
export async function storeReasons(agent: Pick<AgentClient, 'getReasons'>, stateRoot: string): Promise<StoredReasons> {
  const folder = join(stateRoot, 'reasons')
  const stored = new Map<string, string>()
  let after = 0n
  for (let answers = 0; answers < MAX_ANSWERS; answers++) {
    const reasons = await agent.getReasons(after)
    for (const { correlationId, sealed, sequence } of reasons) {
      if (sequence <= after) return stored // no guest of ours counts backwards
      after = sequence
      if (!/^[0-9a-f-]{8,36}$/.test(correlationId) || sealed.byteLength > MAX_SEALED_REASON_BYTES) continue
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const path = join(folder, `${correlationId}.jwe`)
      await writeFile(`${path}.${process.pid}.new`, sealed, { mode: 0o600 })
      await rename(`${path}.${process.pid}.new`, path)
      stored.set(correlationId, path)
    }
    if (reasons.length === 0) break
  }
  if (stored.size > 0) await removeOldest(folder)
  return stored
}

/** Says where the reason of this refusal lies, if the guest handed it out. Never hides the refusal behind an error of its own. */
export async function keepReason(
  agent: Pick<AgentClient, 'getReasons'>,
  { stateRoot, error, out }: { stateRoot: string; error: unknown; out: Output },
): Promise<void> {
  if (!(error instanceof GuestRefusalError) || error.correlationId === undefined) return
  const stored = await storeReasons(agent, stateRoot).catch(() => undefined)
  const path = stored?.get(error.correlationId)
  if (path === undefined) return
  out.progress(`sealed reason for the tenant: ${path} (caisson explain --identity KEY FILE)`, { sealedReason: path })
}

async function removeOldest(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.jwe'))
  if (names.length <= MAX_STORED_REASONS) return
  const aged = await Promise.all(
    names.map(async (name) => ({ name, at: (await stat(join(folder, name)).catch(() => undefined))?.mtimeMs ?? 0 })),
  )
  const oldest = aged.toSorted((a, b) => a.at - b.at).slice(0, names.length - MAX_STORED_REASONS)
  for (const { name } of oldest) await rm(join(folder, name), { force: true })
}
