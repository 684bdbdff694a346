import { spawnSync } from 'node:child_process'
import test from 'ava'
import { type CommandSpec, helpText, parseInvocation } from '#cli/command'
import { COMMANDS } from '#cli/commands'
import { execExitCodeOf, exitCodeOf } from '#cli/exit-code'
import { Output } from '#cli/output'
import { GuestRefusalError } from '#host-shim/pod/guest-refusal'
import { DeniedError, MalformedError, UnavailableError, UnverifiedError, UsageError } from '#protocol/errors'
import { RpcError, StatusCode } from '#protocol/ttrpc/status'

const SPEC: CommandSpec = {
  path: 'try it',
  summary: 'Tries it.',
  operands: 'IMAGE [-- ARGS]',
  minOperands: 1,
  maxOperands: 1,
  options: {
    memory: { type: 'string', placeholder: 'MIB', help: 'memory', default: '512' },
    env: { type: 'string', multiple: true, short: 'e', help: 'environment' },
    quiet: { type: 'boolean', help: 'say nothing' },
  },
  examples: ['caisson try it IMAGE'],
  run: async () => 0,
}

const parse = (...words: string[]): ReturnType<typeof parseInvocation> =>
  parseInvocation(SPEC, words, new Output(false))

test('every command has a summary, help that names its options, and at least one example of itself', async (t) => {
  for (const [path, entry] of Object.entries(COMMANDS)) {
    const spec = await entry.load()
    t.is(spec.path, path)
    t.true(spec.examples.length > 0 && spec.examples.every((example) => example.startsWith(`caisson ${path}`)), path)
    const help = helpText(spec)
    for (const name of [...Object.keys(spec.options), 'json']) t.true(help.includes(`--${name}`), `${path} --${name}`)
  }
})

test('words after -- belong to the container, even when they look like options', (t) => {
  const invocation = parse('image', '--env', 'A=1', '-e', 'B=2', '--', '--quiet', '-x')
  t.deepEqual(invocation.passthrough, ['--quiet', '-x'])
  t.deepEqual(invocation.strings('env'), ['A=1', 'B=2'])
  t.false(invocation.flag('quiet'))
})

test('an unknown option, a missing operand and a number out of range are wrong usage with an example', (t) => {
  for (const action of [
    () => parse('image', '--nope'),
    () => parse(),
    () => parse('a', '--memory', '1x').integer('memory', 1, 9),
    () => parse('a', '--memory', '3').oneOf('memory', ['1', '2']),
  ]) {
    const error = t.throws(action, { instanceOf: UsageError })
    t.is(error?.code, 'ERR_USAGE')
    t.regex(error?.hint ?? '', /Example: caisson try it IMAGE/)
    t.is(exitCodeOf(error), 2)
  }
})

test('an option that is not given has its default', (t) => {
  t.is(parse('image').integer('memory', 1, 1024), 512)
  t.is(parse('image').oneOf('memory', ['256', '512']), '512')
})

test('exit codes tell a verdict from wrong input and from an unavailable part', (t) => {
  t.is(exitCodeOf(new UnverifiedError('ERR_X', 'x')), 1)
  t.is(exitCodeOf(new DeniedError('ERR_X', 'x', { field: 'a', allowed: 'b', asked: 'c' })), 1)
  t.is(exitCodeOf(new MalformedError('ERR_X', 'x')), 2)
  t.is(exitCodeOf(new UnavailableError('ERR_X', 'x')), 3)
})

test('`caisson exec` tells a command that the guest did not run from all else that fails', (t) => {
  const status = new RpcError('ERR_RPC_STATUS', { code: StatusCode.permissionDenied, message: 'no' })
  t.is(execExitCodeOf(new GuestRefusalError('ERR_POLICY_DENIED', status, undefined)), 126)
  t.is(execExitCodeOf(new UsageError('ERR_POD_UNKNOWN', 'there is no pod')), 125)
  t.is(execExitCodeOf(new UnavailableError('ERR_VM_EXITED', 'the VM ended')), 125)
})

test('an error says code, cause and remedy, also where only its code knows the remedy', (t) => {
  const asked = (...words: string[]): string => {
    const main = new URL('../../../cli/main.ts', import.meta.url).pathname
    const { status, stderr } = spawnSync(process.execPath, [main, 'evidence', 'verify', main, '--tee', 'snp', ...words])
    t.is(status, 2)
    return stderr.toString()
  }
  t.regex(
    asked(),
    /^caisson: ERR_EVIDENCE: .*neither JSON, PEM.*\n {2}remedy: Give the report, quote or evidence itself/m,
  )
  const { error } = JSON.parse(asked('--json')) as { error: Record<string, string> }
  t.is(error.code, 'ERR_EVIDENCE')
  t.regex(error.remedy ?? '', /^Give the report/)
})
