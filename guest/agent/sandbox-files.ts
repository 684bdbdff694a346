/** The three files that every container sees and no image brings: hosts, resolv.conf, hostname. Made by the guest. */
import type { Files } from '../platform/platform.ts'
import type { BindMount } from './oci-spec.ts'
import type { SandboxRequest } from './requests.ts'

const DIR = '/run/caisson'

export async function writeSandboxFiles(files: Files, request: SandboxRequest): Promise<void> {
  const encode = (text: string) => new TextEncoder().encode(text)
  await files.mkdir(DIR, 0o755)
  await files.write(`${DIR}/hosts`, encode(hostsText(request)), 0o644)
  await files.write(`${DIR}/resolv.conf`, encode(resolvText(request.nameservers)), 0o644)
  await files.write(`${DIR}/hostname`, encode(`${request.hostname}\n`), 0o644)
}

export const SANDBOX_FILE_BINDS: readonly BindMount[] = ['hosts', 'resolv.conf', 'hostname'].map((name) => ({
  source: `${DIR}/${name}`,
  destination: `/etc/${name}`,
  readOnly: true,
}))

export function hostsText(request: Pick<SandboxRequest, 'hostname' | 'hosts'>): string {
  const lines = ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback', `127.0.1.1 ${request.hostname}`]
  return [...lines, ...request.hosts.map(({ address, name }) => `${address} ${name}`), ''].join('\n')
}

export function resolvText(nameservers: readonly string[]): string {
  return nameservers.map((address) => `nameserver ${address}\n`).join('')
}
