/** `Network` on Node and rtnetlink. */
import { connect } from 'node:net'
import {
  addAddress,
  addGateway,
  addNeighbour,
  addRoute,
  attachCgroupProgram,
  linkByMac,
  linkUp,
  SyscallError,
  setHostname,
} from '#native/guest/index'
import { toHex } from '#protocol/encoding'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Network } from '../platform.ts'

const LOOPBACK_INDEX = 1

export const nodeNetwork: Network = {
  configure: async ({ mac, addresses, gateways, routes, neighbours, mtu }) => {
    const index = await findLink(mac)
    try {
      await linkUp(index, mtu)
      for (const { address, prefix } of addresses) await addAddress(index, address, prefix)
      for (const { address, mac: link } of neighbours) await addNeighbour(index, address, link)
      // Gateways may be reachable only by a route of their own.
      for (const { network, prefix, gateway } of routes.toSorted((a, b) => Number(!!a.gateway) - Number(!!b.gateway))) {
        await addRoute(index, network, prefix, gateway ?? new Uint8Array())
      }
      for (const gateway of gateways) await addGateway(index, gateway)
    } catch (cause) {
      throw new UnavailableError('ERR_NETWORK', `interface ${toHex(mac)}: ${errorText(cause)}`, {
        hint: 'Check addresses, prefixes and gateways of the sandbox.',
        cause,
      })
    }
  },

  // Taking the loopback device up gives it 127.0.0.1 and ::1.
  loopbackUp: () => linkUp(LOOPBACK_INDEX, 0),

  setHostname: async (name) => setHostname(name),

  connectLocal: async (port) => {
    const { byteStreamFromDuplex } = await import('#protocol/node/duplex-stream')
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
      socket.once('error', (cause) => {
        reject(new UnavailableError('ERR_PORT_CLOSED', `port ${port}: ${errorText(cause)}`, { cause }))
      })
      socket.once('connect', () => {
        socket.removeAllListeners('error')
        socket.setNoDelay(true)
        resolve(byteStreamFromDuplex(socket))
      })
    })
  },

  serveLocal: async (port, handle) => (await import('./local-server.ts')).serveLocal(port, handle),

  localPeer: async (port, clientPort) => (await import('./local-peer.ts')).localPeer(port, clientPort),

  confine: async (cgroupPath, { to4, to6, socket }) => {
    const cgroup = `/sys/fs/cgroup${cgroupPath}`
    try {
      await attachCgroupProgram(cgroup, 'connect4', to4)
      await attachCgroupProgram(cgroup, 'connect6', to6)
      await attachCgroupProgram(cgroup, 'sendmsg4', to4)
      await attachCgroupProgram(cgroup, 'sendmsg6', to6)
      await attachCgroupProgram(cgroup, 'socket', socket)
    } catch (cause) {
      throw new UnavailableError('ERR_EGRESS', `the container cannot be held to its egress: ${errorText(cause)}`, {
        hint: 'The guest’s kernel must have CONFIG_CGROUP_BPF.',
        cause,
      })
    }
  },

  // Loaded when first used: the agent answers before it needs HTTP.
  http: async (caPem, hosts = {}, proxy) => {
    const { UndiciTransport } = await import('#protocol/node/http')
    return new UndiciTransport({ caPem, hosts, ...(proxy === undefined ? {} : { proxy }) })
  },
}

async function findLink(mac: Uint8Array): Promise<number> {
  try {
    return await linkByMac(mac)
  } catch (cause) {
    const errno = cause instanceof SyscallError ? cause.errno : ''
    throw new UnavailableError(
      'ERR_NETWORK_NO_DEVICE',
      `no single interface has the address ${toHex(mac)} (${errno})`,
      {
        hint: 'The virtual machine was started with another network device than the one announced.',
        cause,
      },
    )
  }
}
