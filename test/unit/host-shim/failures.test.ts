/** What people are told of machines and containers that ended or never were. */
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { withPull } from '#host-shim/node/create-failure'
import { causeOf, describeEnd } from '#host-shim/node/machine-end'
import { PodProgress } from '#host-shim/node/pod-progress'
import { taskStatus } from '#host-shim/node/task-errors'
import { GuestRefusalError } from '#host-shim/pod/guest-refusal'
import { EventKind, EventSchema } from '#protocol/gen/agent_pb'
import { RpcError, rpcStatus } from '#protocol/ttrpc/status'

const MIB = 1024n * 1024n
const EXIT = { code: 0, signal: undefined, stderr: '' }

function seen(codes: readonly string[], shutdownReason?: string) {
  return { shutdownReason, console: { codes, spoke: true, tail: () => '', onProgress: () => undefined } }
}

test('the end of a machine is told by what the guest’s first process, the monitor and the kernel say', (t) => {
  t.regex(describeEnd(EXIT, seen(['agent-ready', 'agent-died'], 'guest-shutdown')), /agent in its guest died/)
  t.regex(describeEnd(EXIT, seen([], 'guest-panic')), /kernel of its guest panicked/)
  t.is(describeEnd(EXIT, seen(['agent-ready', 'poweroff'], 'guest-shutdown')), 'its guest powered off')
  t.is(describeEnd({ ...EXIT, code: undefined, signal: '9' }, seen(['agent-ready'])), 'QEMU was ended by signal 9')
  t.is(describeEnd({ ...EXIT, code: 1 }, seen([])), 'QEMU ended, code 1')
})

test('a call that the end of the machine cuts off is told as that end, and every other error as it is', async (t) => {
  const cut = new RpcError('ERR_RPC_CLOSED', { code: 14, message: 'the connection is closed' })
  const cause = await causeOf(cut, Promise.resolve('QEMU got SIGKILL'))
  t.like(cause, { code: 'ERR_VM_EXITED', message: 'the machine of the pod has ended: QEMU got SIGKILL' })
  const other = rpcStatus('notFound', 'gone')
  t.is(await causeOf(other, Promise.resolve('x')), other)
  t.is(await causeOf(cut, undefined), cut)
})

test('a container that could not be made says how far its image was, also when the guest has told of the failure before', (t) => {
  const progress = new PodProgress()
  const containerId = 'c'
  const take = (kind: EventKind, more: object = {}) =>
    progress.take(create(EventSchema, { kind, containerId, ...more }))
  const refusal = new GuestRefusalError('ERR_HTTP_CUT', rpcStatus('unavailable', 'x'), 'id-1')
  t.is(withPull(refusal, progress.pullOf(containerId)), refusal)
  take(EventKind.PULL_MANIFEST, { layers: 3, totalBytes: 40n * MIB })
  take(EventKind.PULL_LAYER, { layer: 0, doneBytes: 10n * MIB })
  take(EventKind.PULL_LAYER, { layer: 2, doneBytes: 5n * MIB })
  take(EventKind.FAILED, { errorCode: 'ERR_HTTP_CUT' })
  t.deepEqual(progress.pulls, [])
  const { code, message } = taskStatus(withPull(refusal, progress.pullOf(containerId)))
  t.is(code, taskStatus(refusal).code)
  t.regex(message, /ERR_HTTP_CUT.*id-1.*; its image was pulled as far as 15\.0 of 40\.0 MiB, 3 layers$/)
  take(EventKind.PULL_MANIFEST, { layers: 1, totalBytes: MIB })
  take(EventKind.PULL_DONE)
  take(EventKind.REFUSED, { errorCode: 'ERR_POLICY_DENIED' })
  t.regex(taskStatus(withPull(refusal, progress.pullOf(containerId))).message, /pulled whole: 1\.0 MiB, 1 layer$/)
  // They are not kept for ever.
  for (let index = 0; index < 100; index++) {
    take(EventKind.PULL_MANIFEST, { containerId: `c${index}`, layers: 1, totalBytes: 1n })
    take(EventKind.FAILED, { containerId: `c${index}`, errorCode: 'ERR_X' })
  }
  t.is(progress.pullOf(containerId), undefined)
  t.truthy(progress.pullOf('c99'))
})
