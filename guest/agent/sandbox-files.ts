/** The three files that every container sees and no image brings: hosts, resolv.conf, hostname. Made by the guest. */
import type { HostAlias } from '#policies/pod-rule'
import type { Files } from '../platform/platform.ts'
import { ipText } from './ip-address.ts'
import type { BindMount } from './oci-spec.ts'
import type { SandboxRequest } from './requests.ts'

const DIR = '/run/caisson'

/** @param aliases further names, the policy's */
export async function writeSandboxFiles(
  files: Files,
  request: SandboxRequest,
  aliases: readonly HostAlias[] = [],
): Promise<void> {
  const encode = (text: string) => new TextEncoder().encode(text)
  await files.mkdir(DIR, 0o755)
  await files.write(`${DIR}/hosts`, encode(hostsText(request, aliases)), 0o644)
  await files.write(`${DIR}/resolv.conf`, encode(resolvText(request)), 0o644)
  await files.write(`${DIR}/hostname`, encode(`${request.hostname}\n`), 0o644)
}

export const SANDBOX_FILE_BINDS: readonly BindMount[] = ['hosts', 'resolv.conf', 'hostname'].map((name) => ({
  source: `${DIR}/${name}`,
  destination: `/etc/${name}`,
  readOnly: true,
}))

/** The host's own name means the pod's address, as on any node; a pod without a network has one of the loopback. */
export function hostsText(
  request: Pick<SandboxRequest, 'hostname' | 'hosts' | 'interfaces'>,
  aliases: readonly HostAlias[] = [],
): string {
  const own = request.interfaces.flatMap(({ addresses }) => addresses.map(({ address }) => ipText(address)))
  return [
    '127.0.0.1 localhost',
    '::1 localhost ip6-localhost ip6-loopback',
    ...(own.length === 0 ? ['127.0.1.1'] : own).map((address) => `${address} ${request.hostname}`),
    ...request.hosts.map(({ address, name }) => `${address} ${name}`),
    ...aliases.map(({ address, names }) => `${address} ${names.join(' ')}`),
    '',
  ].join('\n')
}

export function resolvText(request: Pick<SandboxRequest, 'nameservers' | 'searches' | 'resolverOptions'>): string {
  const { nameservers, searches, resolverOptions } = request
  return [
    ...nameservers.map((address) => `nameserver ${address}\n`),
    ...(searches.length === 0 ? [] : [`search ${searches.join(' ')}\n`]),
    ...(resolverOptions.length === 0 ? [] : [`options ${resolverOptions.join(' ')}\n`]),
  ].join('')
}
