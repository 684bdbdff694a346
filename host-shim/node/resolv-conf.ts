/** resolv.conf(5) of a pod, as the kubelet or containerd wrote it. */

export interface ResolvConf {
  /** IP addresses. */
  readonly nameservers: readonly string[]
}

/** Resolvers read three; more are of no use to anybody. */
const MAX_NAMESERVERS = 3

/** Lines that mean nothing here are skipped, as resolvers do. */
export function readResolvConf(text: string): ResolvConf {
  const nameservers = text.split('\n').flatMap((line) => {
    const [keyword, address] = line.trim().split(/\s+/)
    return keyword === 'nameserver' && address !== undefined && /^[0-9a-fA-F.:]+$/.test(address) ? [address] : []
  })
  return { nameservers: nameservers.slice(0, MAX_NAMESERVERS) }
}
