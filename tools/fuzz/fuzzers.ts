/** The coverage-guided fuzzers: every native parser of what somebody else wrote. `test/fuzz/NAME/` has its program. */
export interface Fuzzer {
  readonly name: string
  /** Longest input in bytes. Short ones find more per second; this is what the format needs to say anything. */
  readonly maxBytes: number
  /** Inputs of the short run among the tests: a few seconds. */
  readonly testRuns: number
}

export const FUZZERS: readonly Fuzzer[] = [
  { name: 'vhost-user-message', maxBytes: 600, testRuns: 200_000 },
  { name: 'virtqueue', maxBytes: 4200, testRuns: 100_000 },
  { name: 'vsock-packet', maxBytes: 300, testRuns: 50_000 },
  { name: 'connect-line', maxBytes: 80, testRuns: 200_000 },
  { name: 'tar', maxBytes: 16_384, testRuns: 30_000 },
  { name: 'layer', maxBytes: 12_288, testRuns: 6_000 },
  { name: 'index', maxBytes: 16_384, testRuns: 10_000 },
  { name: 'initdata', maxBytes: 1200, testRuns: 200_000 },
  { name: 'tpm-responses', maxBytes: 300, testRuns: 100_000 },
]
