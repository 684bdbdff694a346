/** Pods' networks as CNI leaves them, in network namespaces of the test's own. */
import { execFileSync } from 'node:child_process'
import test from 'ava'
import { describePodNetwork, joinPodNetwork, leavePodNetwork } from '#host-shim/network/pod-network'

test.serial(
  'a pod has one interface: further ones are refused by name, and those of the kernel are none',
  async (t) => {
    const [pod, node] = ['pod', 'node'].map((name) => `caisson-${process.pid}-${name}`) as [string, string]
    for (const name of [pod, node]) {
      ip('netns', 'add', name)
      t.teardown(() => ip('netns', 'delete', name))
    }
    const namespace = `/run/netns/${pod}`
    const add = (name: string): void => {
      ip('-n', pod, 'link', 'add', name, 'type', 'veth', 'peer', 'name', `to-${name}`, 'netns', node)
    }
    t.is(await joinPodNetwork(namespace), undefined, 'a pod without a network')
    add('eth0')
    ip('-n', pod, 'address', 'add', '10.9.0.2/24', 'dev', 'eth0')
    const down = await t.throwsAsync(joinPodNetwork(namespace), { code: 'ERR_POD_INTERFACES' })
    t.regex(down?.message ?? '', /eth0 \(down\)/, 'not a pod without a network')
    ip('-n', pod, 'link', 'set', 'eth0', 'up')
    // Never set up by anybody.
    add('spare0')
    const joined = await joinPodNetwork(namespace)
    t.like(joined, { tap: 'caisson0' })
    t.like(await describePodNetwork(namespace), { mac: joined?.mac, addresses: ['10.9.0.2/24'] })
    await leavePodNetwork(namespace)
    t.false(ip('-n', pod, 'link', 'show').includes('caisson0'))

    add('net1')
    ip('-n', pod, 'link', 'set', 'net1', 'up')
    const error = await t.throwsAsync(joinPodNetwork(namespace), { code: 'ERR_POD_INTERFACES' })
    t.regex(error?.message ?? '', /eth0, net1/)
    t.false(ip('-n', pod, 'link', 'show').includes('caisson0'))
  },
)

test.serial(
  'a pod whose interface went away after its VM was joined to it is refused, not taken for one without',
  async (t) => {
    const [pod, node] = ['pod6', 'node6'].map((name) => `caisson-${process.pid}-${name}`) as [string, string]
    for (const name of [pod, node]) {
      ip('netns', 'add', name)
      t.teardown(() => ip('netns', 'delete', name))
    }
    const namespace = `/run/netns/${pod}`
    ip('-n', pod, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'to-eth0', 'netns', node)
    ip('-n', pod, 'address', 'add', 'fd00:9::2/64', 'dev', 'eth0', 'nodad')
    ip('-n', pod, 'link', 'set', 'eth0', 'up')
    t.truthy(await joinPodNetwork(namespace))
    // The kernel takes IPv6 addresses off an interface that goes down.
    ip('-n', pod, 'link', 'set', 'eth0', 'down')
    await t.throwsAsync(describePodNetwork(namespace), {
      code: 'ERR_POD_INTERFACES',
      message: /no interface that is up/,
    })
    await leavePodNetwork(namespace)
    t.is(await describePodNetwork(namespace), undefined)
  },
)

function ip(...words: readonly string[]): string {
  return execFileSync('ip', words, { encoding: 'utf8' })
}
