import test from 'ava'
import { Interrupts } from '#cli/run/interrupts'

test.serial('an interrupt means what was said last, and ends the process neither before nor after', (t) => {
  const before = process.listenerCount('SIGTERM')
  const heard: string[] = []
  {
    using interrupts = new Interrupts(() => heard.push('start'))
    process.emit('SIGTERM')
    process.emit('SIGINT')
    interrupts.mean(() => heard.push('stop'))
    process.emit('SIGHUP')
    process.emit('SIGTERM')
    t.is(process.listenerCount('SIGTERM'), before + 1)
  }
  t.deepEqual(heard, ['start', 'start', 'stop', 'stop'])
  t.is(process.listenerCount('SIGTERM'), before)
})
