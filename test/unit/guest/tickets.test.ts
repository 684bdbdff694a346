import test from 'ava'
import { MAX_RAW_STREAMS, MAX_TICKETS, TICKET_LIFETIME_MS } from '#guest/agent/limits'
import { RawStreamServer } from '#guest/agent/raw-streams'
import { TicketOffice } from '#guest/agent/tickets'
import { nodeCrypto } from '#protocol/node/crypto'
import { FakeClock } from './fake-platform.ts'
import { streamPair, textOf } from './stream-pair.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

function office() {
  const clock = new FakeClock()
  return { clock, tickets: new TicketOffice(nodeCrypto, () => clock.monotonicMs()) }
}

test('a ticket works once', (t) => {
  const { tickets } = office()
  const ticket = tickets.issue(async () => undefined)
  t.regex(ticket, /^[0-9a-f]{32}$/)
  t.not(tickets.redeem(bytes(ticket)), undefined)
  t.is(tickets.redeem(bytes(ticket)), undefined)
})

test('a ticket that is too old, too short or guessed opens nothing', (t) => {
  const { clock, tickets } = office()
  const ticket = tickets.issue(async () => undefined)
  t.is(tickets.redeem(bytes(ticket.slice(1))), undefined)
  t.is(tickets.redeem(bytes('0'.repeat(32))), undefined)
  clock.advance(TICKET_LIFETIME_MS)
  t.is(tickets.redeem(bytes(ticket)), undefined)
})

test('unused tickets are bounded, and those that expire make room', (t) => {
  const { clock, tickets } = office()
  for (let count = 0; count < MAX_TICKETS; count++) tickets.issue(async () => undefined)
  t.throws(() => tickets.issue(async () => undefined), { code: 'ERR_LIMIT' })
  clock.advance(TICKET_LIFETIME_MS)
  t.notThrows(() => tickets.issue(async () => undefined))
})

test('a raw stream with a ticket gets OK and then its bytes, also those sent along with the ticket', async (t) => {
  const { clock, tickets } = office()
  const ticket = tickets.issue(async (stream) => {
    for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) await stream.write(chunk)
    await stream.end()
  })
  const [guest, host] = streamPair()
  const served = new RawStreamServer(tickets, clock).serve(guest)
  await host.write(bytes(`TICKET ${ticket}\nab`))
  await host.write(bytes('c'))
  await host.end()
  t.is(await textOf(host), 'OK\nabc')
  await served
})

test('a ticket line that comes byte by byte is read, and one cut short at any byte opens nothing', async (t) => {
  const { clock, tickets } = office()
  const server = new RawStreamServer(tickets, clock)
  const line = (ticket: string) => bytes(`TICKET ${ticket}\n`)
  const whole = line(tickets.issue(async (stream) => stream.end()))
  {
    const [guest, host] = streamPair()
    const served = server.serve(guest)
    for (const byte of whole) await host.write(Uint8Array.of(byte))
    t.is(await textOf(host), 'OK\n')
    await served
  }
  const opened: string[] = []
  const cut = line(tickets.issue(async () => void opened.push('opened')))
  for (let length = 0; length < cut.byteLength; length++) {
    const [guest, host] = streamPair()
    const served = server.serve(guest)
    if (length > 0) await host.write(cut.subarray(0, length))
    await host.end()
    t.is(await textOf(host), '')
    await served
  }
  t.deepEqual(opened, [])
})

test('anything but a ticket line is closed without a word', async (t) => {
  const { clock, tickets } = office()
  const ticket = tickets.issue(async () => t.fail())
  for (const text of [
    `ticket ${ticket}\n`,
    `TICKET ${ticket} `,
    `TICKET ${ticket.toUpperCase()}x\n`,
    'x'.repeat(500),
  ]) {
    const [guest, host] = streamPair()
    const served = new RawStreamServer(tickets, clock).serve(guest)
    await host.write(bytes(text))
    t.is(await textOf(host), '')
    await served
  }
})

test('a peer that says nothing is let go after a while', async (t) => {
  const { clock, tickets } = office()
  const [guest, host] = streamPair()
  const served = new RawStreamServer(tickets, clock).serve(guest)
  clock.advance(60_000)
  await served
  t.is(await host.read(), null)
})

test('one raw stream more than allowed is closed at once, and there is room again when one ends', async (t) => {
  const { clock, tickets } = office()
  const server = new RawStreamServer(tickets, clock)
  const silent = Array.from({ length: MAX_RAW_STREAMS }, () => {
    const [guest, host] = streamPair()
    return { host, served: server.serve(guest) }
  })
  const ticket = tickets.issue(async (stream) => stream.end())
  const [refused, outside] = streamPair()
  await server.serve(refused)
  t.is(await outside.read(), null)
  const [first] = silent
  await first?.host.end()
  await first?.served
  const [guest, host] = streamPair()
  const served = server.serve(guest)
  await host.write(bytes(`TICKET ${ticket}\n`))
  t.is(await textOf(host), 'OK\n')
  await served
  for (const { host: rest } of silent) await rest.end()
  await Promise.all(silent.map((stream) => stream.served))
})
