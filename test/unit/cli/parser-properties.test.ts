import test from 'ava'
import fc from 'fast-check'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { parseHosts } from '#cli/connections'
import { parseListen } from '#cli/listen-address'
import { parseMoment } from '#cli/moment'
import { Output } from '#cli/output'
import { parsePublish } from '#cli/run/published-port'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const SPEC: CommandSpec = {
  path: 'try it',
  summary: 'Tries it.',
  operands: 'IMAGE [-- ARGS]',
  minOperands: 1,
  maxOperands: 1,
  options: {
    memory: { type: 'string', help: 'memory' },
    env: { type: 'string', multiple: true, short: 'e', help: 'environment' },
    quiet: { type: 'boolean', help: 'say nothing' },
  },
  examples: ['caisson try it IMAGE'],
  run: async () => 0,
}

test('any words are an invocation with its operands, or refused', (t) => {
  const word = fc.oneof(
    fc.constantFrom('image', '--', '--memory', '--memory=1', '-e', '--quiet', '-q', '-', ''),
    fc.string(),
  )
  refusesOrKeeps(
    t,
    fc.array(word, { maxLength: 6 }),
    (words) => parseInvocation(SPEC, words, new Output(false)),
    (value, words) => {
      const separator = words.indexOf('--')
      const behind = separator < 0 ? undefined : words.slice(separator + 1)
      return value.operands.length === 1 && JSON.stringify(value.passthrough) === JSON.stringify(behind)
    },
  )
})

test('hosts are names with addresses, or refused', (t) => {
  refusesOrKeeps(
    t,
    damaged('registry.example:127.0.0.1'),
    (word) => parseHosts([word]),
    (hosts) => Object.entries(hosts).every(([name, address]) => name !== '' && !name.includes(':') && address !== ''),
  )
})

test('a published port has a place to listen and a port that exists, or is refused', (t) => {
  refusesOrKeeps(
    t,
    damaged('127.0.0.1:8443:8443'),
    parsePublish,
    ({ listen, port }) => port >= 1 && port <= 65_535 && listen.includes(':'),
  )
})

test('any text is a moment, or refused', (t) => {
  const iso = fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
  const whole = /^\d{4}-.*T.*\.\d{3}Z$/
  refusesOrKeeps(
    t,
    fc.oneof(iso, iso.chain(damaged), fc.nat().map(String), fc.string()),
    parseMoment,
    (moment, text) => !Number.isNaN(moment.getTime()) && (!whole.test(text) || moment.toISOString() === text),
  )
})

test('where to listen is an address and a port, or refused', (t) => {
  t.deepEqual(parseListen('[::1]:9464', 'listen'), { host: '::1', port: 9464 })
  t.deepEqual(parseListen('verifier.example:0', 'listen'), { host: 'verifier.example', port: 0 })
  for (const text of ['9464', '::1:9464', '[::1]', 'a b:1', '127.0.0.1:65536', '127.0.0.1:']) {
    const error = t.throws(() => parseListen(text, 'metrics'), { code: 'ERR_USAGE' }, text)
    t.true(error?.message.startsWith('--metrics '))
  }
  const read = (text: string) => parseListen(text, 'listen')
  refusesOrKeeps(t, fc.oneof(damaged('127.0.0.1:9464'), fc.string()), read, ({ host, port }, text) => {
    return text.includes(host) && port <= 65_535
  })
})
