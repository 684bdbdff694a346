/**
 * A container's certificate: the key is made here and leaves the guest never; the verifier certifies it for the names
 * that the policy asks for. The files lie in guest memory and are replaced one by one, each atomically; the key stays the
 * same for the container's life, so that key and certificate fit together at every moment.
 */
import { createPodKey, type PodCertificate, type PodKey, requestFor } from '#attestation/client/pod-identity'
import type { IdentityRule } from '#policies/identity-rule'
import type { Platform } from '../platform/platform.ts'
import type { BindMount } from './oci-spec.ts'

export type CertificateSource = (request: Uint8Array, options?: { signal?: AbortSignal }) => Promise<PodCertificate>

/** Between two attempts at least, milliseconds. */
const MIN_PAUSE_MS = 10_000

/**
 * Writes the files and keeps the certificate fresh until it is undone.
 *
 * @param directory of the guest, made here
 * @throws what the certificate source throws when the first certificate does not come
 */
export async function provideIdentity(
  { platform, certificate }: { readonly platform: Platform; readonly certificate: CertificateSource },
  rule: IdentityRule,
  directory: string,
  undo: AsyncDisposableStack,
): Promise<BindMount> {
  const { files } = platform
  const key = await createPodKey()
  const first = await certificate(await requestFor(key, rule.names))
  await files.mkdir(directory, 0o755)
  const owner = { uid: rule.uid, gid: rule.gid }
  await files.write(`${directory}/key.pem`, new TextEncoder().encode(key.privateKeyPem), 0o400, owner)
  await writeCertificate(platform, directory, first)
  const stopped = new AbortController()
  const renewing = keepFresh({ platform, certificate, key, names: rule.names, directory }, first, stopped.signal)
  undo.defer(async () => {
    stopped.abort()
    await renewing
  })
  return { source: directory, destination: rule.path, readOnly: true }
}

interface Renewal {
  readonly platform: Platform
  readonly certificate: CertificateSource
  readonly key: PodKey
  readonly names: readonly string[]
  readonly directory: string
}

/** Half of what is left is waited for each time: attempts become more frequent as the end comes near. Never throws. */
async function keepFresh(renewal: Renewal, first: PodCertificate, signal: AbortSignal): Promise<void> {
  const { platform, certificate, key, names, directory } = renewal
  let current = first
  while (!signal.aborted) {
    const leftMs = current.expiresAt.getTime() - platform.clock.now().getTime()
    try {
      await platform.clock.sleep(Math.max(leftMs / 2, MIN_PAUSE_MS), signal)
      if (signal.aborted) return
      const next = await certificate(await requestFor(key, names), { signal })
      await writeCertificate(platform, directory, next)
      current = next
    } catch {
      // A refusal is on record at the verifier, under the tenant's eyes; peers stop believing the old one when it expires.
    }
  }
}

/** The CAs first: a peer that already has a certificate of a new one must be believed before ours is from it, too. */
async function writeCertificate({ files }: Platform, directory: string, next: PodCertificate): Promise<void> {
  const text = new TextEncoder()
  await files.write(`${directory}/ca.pem`, text.encode(next.caPem), 0o444)
  await files.write(`${directory}/cert.pem`, text.encode(next.certificatePem), 0o444)
}
