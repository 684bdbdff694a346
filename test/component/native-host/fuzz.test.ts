/** A short deterministic run of test/fuzz/native-host; longer ones by hand: `native/build/fuzz-native-host ROUNDS SEED`. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { buildNative } from '../../../native/build.mjs'

const { 'fuzz-native-host': program = '' } = await buildNative({ only: ['fuzz-native-host'] })

test('parsers and ring walking keep their promises on generated input, under sanitizers', async (t) => {
  const { stdout } = await promisify(execFile)(program, ['20000', '1'])
  t.is(stdout, '20000 inputs\n')
})
