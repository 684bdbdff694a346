import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { scratchFolder } from './machine.ts'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

test("PID 1's SHA-256 agrees with OpenSSL's at every length around a block, and at 1 MiB", async (t) => {
  const driver = join(await scratchFolder(t), 'driver')
  const sources = [path('sha256-driver.c'), path('../../../guest/init/sha256.c')]
  execFileSync('gcc', ['-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover', '-o', driver, ...sources])
  const message = Buffer.from(Array.from({ length: 1 << 20 }, (_, n) => (n * 7 + (n >> 8)) & 255))
  for (const length of [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 1000, 1 << 20]) {
    const input = message.subarray(0, length)
    const expected = createHash('sha256').update(input).digest('hex')
    t.is(execFileSync(driver, { input, encoding: 'utf8' }), expected, `${length} bytes`)
  }
})
