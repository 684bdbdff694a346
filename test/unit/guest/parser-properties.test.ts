import { create } from '@bufbuild/protobuf'
import test from 'ava'
import fc from 'fast-check'
import { parseFlat } from '#guest/agent/cgroup-stats'
import { parseExecId, parsePort, parseResources, parseSignal } from '#guest/agent/requests'
import { parseAuthFile } from '#image/auth/auth-file'
import { ResourcesSchema } from '#protocol/gen/agent_pb'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('a flat file of a control group gives counts and never fails', (t) => {
  refusesOrKeeps(t, damaged('usage_usec 17\nuser_usec 9\noom_kill 0\n'), parseFlat, (values) =>
    [...values].every(([name, count]) => name !== '' && count >= 0n),
  )
  t.is(parseFlat('usage_usec 17\n').get('usage_usec'), 17n)
})

test('registry credentials are found by the name they are stored under, or refused', (t) => {
  const auth = Buffer.from('user:pass:word').toString('base64')
  const good = JSON.stringify({ auths: { 'registry.example/team': { auth } } })
  refusesOrKeeps(
    t,
    damaged(good),
    (input) => parseAuthFile(new TextEncoder().encode(input)),
    (source) => source('other.example', 'app') === undefined,
  )
  // User and password of any bytes: a damaged auth is refused as such, whatever it decodes to.
  refusesOrKeeps(
    t,
    fc.uint8Array({ maxLength: 12 }),
    (bytes) => {
      const entry = { auth: Buffer.from(bytes).toString('base64') }
      return parseAuthFile(Buffer.from(JSON.stringify({ auths: { 'registry.example': entry } })))
    },
    (source) => source('registry.example', 'app')?.username !== '',
  )
  const source = parseAuthFile(Buffer.from(good))
  t.deepEqual(source('registry.example', 'team/app'), { username: 'user', password: 'pass:word' })
})

test('a registry whose credentials only a credential helper has is refused by the helper’s name', (t) => {
  const auth = Buffer.from('user:password').toString('base64')
  const file = (more: object) => parseAuthFile(Buffer.from(JSON.stringify({ ...more })))
  const asked = { code: 'ERR_REGISTRY_CREDENTIALS', message: /registry\.example .*helper "ecr-login"/ }
  const helped = file({ credHelpers: { 'registry.example': 'ecr-login' }, auths: { 'other.example': { auth } } })
  t.throws(() => helped('registry.example', 'app'), asked)
  t.is(helped('other.example', 'app')?.username, 'user')
  t.is(helped('public.example', 'app'), undefined)
  const stored = file({ credsStore: 'ecr-login', auths: { 'other.example': { auth } } })
  t.throws(() => stored('registry.example', 'app'), asked)
  t.is(stored('other.example', 'app')?.username, 'user')
  refusesOrKeeps(t, fc.jsonValue(), (credHelpers) => file({ credHelpers, auths: {} }))
})

test('an id of a process is a plain name, or empty for the first', (t) => {
  refusesOrKeeps(t, damaged('exec-1'), parseExecId, (value, input) => value === input && /^[\w.-]{0,128}$/.test(value))
})

test('signals and ports lie in their ranges', (t) => {
  refusesOrKeeps(t, fc.integer(), parseSignal, (value) => value >= 1 && value <= 64)
  refusesOrKeeps(t, fc.integer({ min: -10, max: 70_000 }), parsePort, (value) => value >= 1 && value <= 65_535)
})

test('limits of a container are whole numbers that a number can hold, or refused', (t) => {
  const any = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
  const limits = fc.record({ memoryLimitBytes: any, cpuQuotaUs: any, cpuPeriodUs: any, cpuShares: any, pidsLimit: any })
  refusesOrKeeps(
    t,
    limits.map((values) => create(ResourcesSchema, values)),
    parseResources,
    (values) => Object.values(values).every((value) => Number.isSafeInteger(value) && value >= 0),
  )
})
