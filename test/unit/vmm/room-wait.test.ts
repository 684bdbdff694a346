import test from 'ava'
import { UnavailableError } from '#protocol/errors'
import { RoomWait } from '#vmm/qemu/room-wait'

const NO_ROOM = { event: 'BLOCK_IO_ERROR', data: { action: 'stop', device: 'scratch' } }

/** A VM that does this when it is let go on: refuses, finds no room again, or runs; after the last one it runs. */
function waiting(...answers: readonly (Error | 'no room')[]) {
  let tries = 0
  const told: boolean[] = []
  const room: RoomWait = new RoomWait({
    resume: async () => {
      const answer = answers[tries++]
      if (answer instanceof Error) throw answer
      if (answer === 'no room') room.take(NO_ROOM)
    },
    onDiskFull: (full) => told.push(full),
    retryMs: 1,
  })
  return { room, tries: () => tries, told }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 2))

test('a VM that waits for room is let go on again and again, also when QEMU refuses or is silent once', async (t) => {
  const { room, tries } = waiting(
    new UnavailableError('ERR_QMP_TIMEOUT', 'silent'),
    new UnavailableError('ERR_QMP_REFUSED', 'not now'),
  )
  room.take(NO_ROOM)
  room.take(NO_ROOM)
  t.true(room.waits)
  for (const deadline = Date.now() + 60_000; room.waits && Date.now() < deadline; ) await pause()
  t.is(tries(), 3)
})

test('a disk that is full is told once, however often the VM tries, and so is that there is room again', async (t) => {
  const { room, tries, told } = waiting('no room', new UnavailableError('ERR_QMP_TIMEOUT', 'silent'), 'no room')
  room.take(NO_ROOM)
  t.deepEqual(told, [true])
  while (told.length < 2) await pause()
  t.deepEqual([tries(), told], [4, [true, false]])
  room.take(NO_ROOM)
  while (told.length < 4) await pause()
  t.deepEqual(told, [true, false, true, false])
})

test('a VM that has ended waits for nothing', async (t) => {
  const { room, tries, told } = waiting(new UnavailableError('ERR_QMP_CLOSED', 'gone'))
  room.take(NO_ROOM)
  while (tries() === 0) await pause()
  for (let turn = 0; turn < 10; turn++) await pause()
  t.is(tries(), 1)
  t.deepEqual(told, [true])
})

test('an error that does not stop a VM is none of its waiting', (t) => {
  const { room } = waiting()
  room.take({ event: 'BLOCK_IO_ERROR', data: { action: 'report' } })
  room.take({ event: 'STOP', data: {} })
  t.false(room.waits)
})
