import test from 'ava'
import fc from 'fast-check'
import { clientInode, parseSocketTable } from '#guest/platform/socket-table'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const HEADING = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode'
const REST = '00000000:00000000 00:00000000 00000000    33        0'
const row = (local: string, remote: string, state: string, inode: number): string =>
  `   1: ${local} ${remote} ${state} ${REST} ${inode} 1 0000000000000000 20 4 30 10 -1`
const HERE = '0100007F'
const MAPPED = '0000000000000000FFFF00000100007F'
const CLIENT = row(`${HERE}:9C40`, `${HERE}:1F46`, '01', 777)
const inodeOf = (...rows: readonly string[]) =>
  clientInode(parseSocketTable([HEADING, ...rows].join('\n')), 8006, 40_000)

test('the client’s end of a loopback connection is found by both ports', (t) => {
  t.is(inodeOf(row(`${HERE}:1F46`, `${HERE}:9C40`, '01', 778), CLIENT), '777')
  t.is(inodeOf(row(`${MAPPED}:9C40`, `${MAPPED}:1F46`, '01', 779)), '779')
})

const OTHERS: readonly [what: string, rows: readonly string[]][] = [
  ['there is none', []],
  ['it is not established', [row(`${HERE}:9C40`, `${HERE}:1F46`, '06', 777)]],
  ['no process has it any more', [row(`${HERE}:9C40`, `${HERE}:1F46`, '01', 0)]],
  ['it goes elsewhere', [row(`${HERE}:9C40`, `${HERE}:1F47`, '01', 777)]],
  ['it comes from another machine', [row('0200000A:9C40', `${HERE}:1F46`, '01', 777)]],
  ['there are two', [CLIENT, row(`${MAPPED}:9C40`, `${MAPPED}:1F46`, '01', 779)]],
]
for (const [what, rows] of OTHERS) {
  test(`no socket is taken for the client’s when ${what}`, (t) => {
    t.is(inodeOf(...rows), undefined)
  })
}

test('a table of sockets gives rows with ports and inodes, whatever else it holds', (t) => {
  refusesOrKeeps(t, damaged(`${HEADING}\n${CLIENT}\n`), parseSocketTable, (rows) =>
    rows.every(({ local, remote, inode }) => local.port <= 65_535 && remote.port <= 65_535 && /^\d+$/.test(inode)),
  )
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => parseSocketTable(text).length >= 0))
})
