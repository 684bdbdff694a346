import { create, fromBinary } from '@bufbuild/protobuf'
import test from 'ava'
import fc from 'fast-check'
import { parseIpAddress, parseMac, parseNetworkAddress } from '#guest/agent/ip-address'
import {
  parseContainerRequest,
  parseExecRequest,
  parseId,
  parseSandboxRequest,
  parseWindow,
} from '#guest/agent/requests'
import { CaissonError } from '#protocol/errors'
import {
  CreateContainerRequestSchema,
  ExecProcessRequestSchema,
  StartSandboxRequestSchema,
} from '#protocol/gen/agent_pb'

const malformed = { code: 'ERR_REQUEST_MALFORMED' }

test('addresses are read in one way only', (t) => {
  t.deepEqual(parseIpAddress('10.0.2.15', 'x'), Uint8Array.of(10, 0, 2, 15))
  t.deepEqual([...parseIpAddress('fe80::1', 'x')], [0xfe, 0x80, ...new Array(13).fill(0), 1])
  t.deepEqual([...parseIpAddress('::', 'x')], new Array(16).fill(0))
  t.is(parseIpAddress('1:2:3:4:5:6:7:8', 'x').byteLength, 16)
  t.deepEqual(parseNetworkAddress('10.0.2.15/24', 'x'), { address: Uint8Array.of(10, 0, 2, 15), prefix: 24 })
  const wrong = [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '256.1.1.1',
    '1.2.3.4 ',
    '1::2::3',
    ':::',
    '1:2:3:4:5:6:7',
    '12345::',
    '::1.2.3.4',
    '1:2:3:4:5:6:7::8:9',
    '0x1.2.3.4',
  ]
  for (const text of wrong) t.throws(() => parseIpAddress(text, 'x'), malformed, text)
  for (const text of ['10.0.0.1', '10.0.0.1/33', '10.0.0.1/', '10.0.0.1/-1', '::1/129', '/24']) {
    t.throws(() => parseNetworkAddress(text, 'x'), malformed, text)
  }
  t.deepEqual(parseMac('52:54:00:Ab:15:01', 'x'), Uint8Array.of(0x52, 0x54, 0, 0xab, 0x15, 1))
  for (const text of ['', '52:54:00:ab:15', '52-54-00-ab-15-01', '52:54:00:ab:15:01:', 'zz:54:00:ab:15:01']) {
    t.throws(() => parseMac(text, 'x'), malformed, text)
  }
})

test('every IPv4 address has exactly the text of its four numbers', (t) => {
  fc.assert(fc.property(fc.ipV4(), (text) => [...parseIpAddress(text, 'x')].join('.') === text))
  t.notThrows(() =>
    fc.assert(
      fc.property(
        fc.ipV6().filter((text) => !text.includes('.')),
        (text) => parseIpAddress(text, 'x').byteLength === 16,
      ),
    ),
  )
})

test('a sandbox request with wrong names, addresses or too many of them is refused', (t) => {
  const parse = (init: Parameters<typeof create<typeof StartSandboxRequestSchema>>[1]) =>
    parseSandboxRequest(create(StartSandboxRequestSchema, init))
  t.is(parse({}).hostname, 'caisson')
  t.throws(() => parse({ hostname: 'a b' }), malformed)
  t.throws(() => parse({ hostname: 'a\n127.0.0.1 evil' }), malformed)
  t.throws(() => parse({ nameservers: ['10.0.0.1\nsearch evil'] }), malformed)
  t.throws(() => parse({ hosts: [{ name: 'registry.test\n', address: '10.0.0.1' }] }), malformed)
  t.throws(() => parse({ hosts: new Array(65).fill({ name: 'a', address: '10.0.0.1' }) }), malformed)
  t.throws(() => parse({ interfaces: [{ mac: '52:54:00:ab:15:01', mtu: 70_000 }] }), malformed)
})

test('a container request keeps its bounds', (t) => {
  const parse = (init: Parameters<typeof create<typeof CreateContainerRequestSchema>>[1]) =>
    parseContainerRequest(create(CreateContainerRequestSchema, { containerId: 'c', ...init }))
  t.is(parse({}).request.args, undefined)
  t.deepEqual(parse({ args: { values: ['a', ''] } }).request.args, ['a', ''])
  t.throws(() => parse({ args: { values: [] } }), malformed)
  t.throws(() => parse({ args: { values: ['a\0b'] } }), malformed)
  t.throws(() => parse({ args: { values: new Array(1025).fill('') } }), malformed)
  t.throws(() => parse({ args: { values: ['x'.repeat(200_000)] } }), malformed)
  t.throws(() => parse({ env: ['NOVALUE'] }), malformed)
  t.throws(() => parse({ env: ['=x'] }), malformed)
  t.throws(() => parse({ user: 'a\nb' }), malformed)
  t.throws(() => parse({ resources: { memoryLimitBytes: 2n ** 60n } }), malformed)
  t.throws(() => parse({ mounts: new Array(65).fill({ kind: 'tmpfs', destination: '/x' }) }), malformed)
  t.throws(() => parse({ groups: new Array(65).fill(1) }), malformed)
  t.deepEqual(parse({ devices: [{ path: '/dev/a', disk: 'block-3' }] }).request.devices, [
    { path: '/dev/a', disk: 'block-3' },
  ])
  // The guest's own disks have other words.
  for (const disk of ['scratch', 'root', 'initdata', '', 'block-', 'block-0/x', 'block-123']) {
    t.throws(() => parse({ devices: [{ path: '/dev/a', disk }] }), malformed, disk)
  }
  for (const containerId of ['', '.', '../x', 'a/b', 'a b', 'x'.repeat(129), 'ä']) {
    t.throws(() => parse({ containerId }), malformed, containerId)
  }
})

test('an exec names a program, and an id of its own', (t) => {
  const parse = (init: Parameters<typeof create<typeof ExecProcessRequestSchema>>[1]) =>
    parseExecRequest(create(ExecProcessRequestSchema, { containerId: 'c', ...init }))
  t.throws(() => parse({ execId: 'e' }), malformed)
  t.throws(() => parse({ args: ['ls'] }), malformed)
  t.is(parse({ execId: 'e', args: ['ls'] }).execId, 'e')
})

test('windows and ids are in range', (t) => {
  t.throws(() => parseWindow(0, 1), malformed)
  t.throws(() => parseWindow(1, 65_536), malformed)
  t.throws(() => parseId('-x', 'id'), malformed)
})

test('any bytes of a message are either a bounded request or refused as malformed', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        for (const [schema, parse] of [
          [CreateContainerRequestSchema, parseContainerRequest],
          [StartSandboxRequestSchema, parseSandboxRequest],
          [ExecProcessRequestSchema, parseExecRequest],
        ] as const) {
          let message: Parameters<typeof parse>[0]
          try {
            message = fromBinary(schema, bytes)
          } catch {
            continue
          }
          try {
            // Each parser takes the message of its own schema.
            Reflect.apply(parse, undefined, [message])
          } catch (error) {
            if (!(error instanceof CaissonError) || error.code !== 'ERR_REQUEST_MALFORMED') throw error
          }
        }
      }),
    ),
  )
})
