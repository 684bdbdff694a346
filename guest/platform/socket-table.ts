/** The kernel's table of TCP sockets, proc_pid_net(5): /proc/net/tcp and /proc/net/tcp6. */

export interface TcpSocket {
  readonly local: { readonly address: string; readonly port: number }
  readonly remote: { readonly address: string; readonly port: number }
  /** include/net/tcp_states.h: 1 is ESTABLISHED. */
  readonly state: number
  /** 0 when no process holds it any more. */
  readonly inode: string
}

export const ESTABLISHED = 1

/** Addresses stay as the kernel prints them: 32-bit words in the machine's byte order, upper-case hex. */
export const LOOPBACK_HEX = '0100007F'
/** ::ffff:127.0.0.1, as a socket for both families has it. */
export const MAPPED_LOOPBACK_HEX: string = `0000000000000000FFFF0000${LOOPBACK_HEX}`

const ROW =
  /^ *\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) [0-9A-F]{8}:[0-9A-F]{8} [0-9A-F]{2}:[0-9A-F]{8} [0-9A-F]{8} +\d+ +\d+ (\d+) /

/** Every row that is one; the heading and what the kernel may add some day are not. */
export function parseSocketTable(text: string): readonly TcpSocket[] {
  return text.split('\n').flatMap((line) => {
    const [, address = '', port = '', remoteAddress = '', remotePort = '', state = '', inode = ''] =
      ROW.exec(line) ?? []
    if (inode === '') return []
    return [
      {
        local: { address, port: Number.parseInt(port, 16) },
        remote: { address: remoteAddress, port: Number.parseInt(remotePort, 16) },
        state: Number.parseInt(state, 16),
        inode,
      },
    ]
  })
}

/** Inode of the client's end of a loopback connection to `port`; undefined when there is not exactly one. */
export function clientInode(sockets: readonly TcpSocket[], port: number, clientPort: number): string | undefined {
  const isLoopback = (address: string): boolean => address === LOOPBACK_HEX || address === MAPPED_LOOPBACK_HEX
  const [found, ...more] = sockets.filter(
    ({ local, remote, state, inode }) =>
      state === ESTABLISHED &&
      inode !== '0' &&
      local.port === clientPort &&
      remote.port === port &&
      isLoopback(local.address) &&
      isLoopback(remote.address),
  )
  return more.length === 0 ? found?.inode : undefined
}
