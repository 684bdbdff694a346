/** resolv.conf(5) of a pod, as the kubelet or containerd wrote it. */

export interface ResolvConf {
  /** IP addresses. */
  readonly nameservers: readonly string[]
  /** Domains that bare names are looked up in. */
  readonly searches: readonly string[]
  readonly options: readonly string[]
}

/** Resolvers read three; more are of no use to anybody. */
const MAX_NAMESERVERS = 3

/** Lines that mean nothing here are skipped, as resolvers do; of several `search` lines the last one counts. */
export function readResolvConf(text: string): ResolvConf {
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/))
  const nameservers = lines.flatMap(([keyword, address]) =>
    keyword === 'nameserver' && address !== undefined && /^[0-9a-fA-F.:]+$/.test(address) ? [address] : [],
  )
  const searches = lines.findLast(([keyword]) => keyword === 'search' || keyword === 'domain')?.slice(1) ?? []
  const options = lines.flatMap(([keyword, ...words]) => (keyword === 'options' ? words : []))
  return { nameservers: nameservers.slice(0, MAX_NAMESERVERS), searches, options }
}
