import test from 'ava'
import { parseLinks, parseNeighbours, parseRoutes } from '#host-shim/network/ip-json'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const LINKS = JSON.stringify([
  { ifname: 'lo', mtu: 65536, link_type: 'loopback', address: '00:00:00:00:00:00', addr_info: [] },
  {
    ifname: 'eth0',
    mtu: 1450,
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    link_type: 'ether',
    address: '5e:3a:2a:1a:bb:95',
    addr_info: [
      { family: 'inet', local: '10.88.0.5', prefixlen: 24, scope: 'global' },
      { family: 'inet6', local: 'fd00::5', prefixlen: 64, scope: 'global' },
      { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link' },
    ],
  },
  // As the module ipip puts it into every namespace.
  { ifname: 'tunl0', flags: ['NOARP'], mtu: 1480, link_type: 'ipip', address: '0.0.0.0', addr_info: [] },
])
const ROUTES = JSON.stringify([{ dst: 'default', gateway: '10.88.0.1', dev: 'eth0', flags: [] }])

test('an interface has its MAC, its MTU and its global addresses of both families', (t) => {
  const [lo, eth0, tunnel] = parseLinks(LINKS)
  t.true(lo?.loopback)
  t.like(tunnel, { name: 'tunl0', mac: '', isUp: false })
  t.deepEqual(eth0, {
    name: 'eth0',
    mac: '5e:3a:2a:1a:bb:95',
    mtu: 1450,
    loopback: false,
    isUp: true,
    addresses: ['10.88.0.5/24', 'fd00::5/64'],
  })
})

test('interfaces that are damaged are refused, or fit into a command', (t) => {
  refusesOrKeeps(t, damaged(LINKS), parseLinks, (links) =>
    links.every(({ name, mac }) => /^[A-Za-z0-9._-]{1,15}$/.test(name) && /^(?:[0-9a-f:]{17}|)$/.test(mac)),
  )
})

test('a default route has a gateway and a device; one that is damaged is refused', (t) => {
  t.deepEqual(parseRoutes(ROUTES)[0], { destination: undefined, gateway: '10.88.0.1', device: 'eth0' })
  t.deepEqual(parseRoutes('[{}]'), [])
  t.deepEqual(parseRoutes(''), [])
  refusesOrKeeps(t, damaged(ROUTES), parseRoutes, (routes) =>
    routes.every(({ gateway }) => gateway === undefined || /^[0-9a-f.:]+$/.test(gateway)),
  )
})

/** As the ptp plugin makes it: a gateway that is reached by a route of its own. */
const PTP = JSON.stringify([
  { dst: 'default', gateway: '10.1.0.1', dev: 'eth0', flags: [] },
  { dst: '10.1.0.0/24', gateway: '10.1.0.1', dev: 'eth0', prefsrc: '10.1.0.9', flags: [] },
  { dst: '10.1.0.1', dev: 'eth0', scope: 'link', prefsrc: '10.1.0.9', flags: [] },
  { dst: '10.2.0.0/16', dev: 'eth0', protocol: 'kernel', scope: 'link', flags: [] },
  { type: 'multicast', dst: 'ff00::/8', dev: 'eth0', flags: [] },
])

test('routes beside the default one are told with their gateway; the kernel’s own are left to the kernel', (t) => {
  t.deepEqual(parseRoutes(PTP), [
    { destination: undefined, gateway: '10.1.0.1', device: 'eth0' },
    { destination: '10.1.0.0/24', gateway: '10.1.0.1', device: 'eth0' },
    { destination: '10.1.0.1/32', gateway: undefined, device: 'eth0' },
  ])
})

const NEIGHBOURS = JSON.stringify([
  { dst: '10.1.0.1', dev: 'eth0', lladdr: 'ee:ee:ee:ee:ee:ee', state: ['PERMANENT'] },
  { dst: '10.1.0.2', dev: 'eth0', state: ['PERMANENT'] },
])

test('neighbours whose link address is known are told; a damaged list is refused', (t) => {
  t.deepEqual(parseNeighbours(NEIGHBOURS), [{ address: '10.1.0.1', mac: 'ee:ee:ee:ee:ee:ee' }])
  refusesOrKeeps(t, damaged(NEIGHBOURS), parseNeighbours, (known) =>
    known.every(({ mac }) => /^(?:[0-9a-f:]{17}|)$/.test(mac)),
  )
})
