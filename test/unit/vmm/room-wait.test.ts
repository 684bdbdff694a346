import test from 'ava'
import { UnavailableError } from '#protocol/errors'
import { RoomWait } from '#vmm/qemu/room-wait'

const NO_ROOM = { event: 'BLOCK_IO_ERROR', data: { action: 'stop', device: 'scratch' } }

/** A VM whose answers to `cont` are these, one after the other, and then that it runs. */
function waiting(...answers: readonly (Error | undefined)[]): {
  room: RoomWait
  tries: () => number
  told: () => number
} {
  let tries = 0
  let told = 0
  const room = new RoomWait({
    resume: async () => {
      const answer = answers[tries++]
      if (answer !== undefined) throw answer
    },
    onDiskFull: () => told++,
    retryMs: 1,
  })
  return { room, tries: () => tries, told: () => told }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 2))

test('a VM that waits for room is let go on again and again, also when QEMU refuses or is silent once', async (t) => {
  const { room, tries, told } = waiting(
    new UnavailableError('ERR_QMP_TIMEOUT', 'silent'),
    new UnavailableError('ERR_QMP_REFUSED', 'not now'),
  )
  room.take(NO_ROOM)
  room.take(NO_ROOM)
  t.true(room.waits)
  for (const deadline = Date.now() + 60_000; room.waits && Date.now() < deadline; ) await pause()
  t.deepEqual([tries(), told()], [3, 1])
  room.take(NO_ROOM)
  t.true(room.waits)
  t.is(told(), 2)
})

test('a VM that has ended waits for nothing', async (t) => {
  const { room, tries } = waiting(new UnavailableError('ERR_QMP_CLOSED', 'gone'))
  room.take(NO_ROOM)
  while (tries() === 0) await pause()
  for (let turn = 0; turn < 10; turn++) await pause()
  t.is(tries(), 1)
})

test('an error that does not stop a VM is none of its waiting', (t) => {
  const { room } = waiting()
  room.take({ event: 'BLOCK_IO_ERROR', data: { action: 'report' } })
  room.take({ event: 'STOP', data: {} })
  t.false(room.waits)
})
