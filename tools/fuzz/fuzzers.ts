/** The coverage-guided fuzzers: every native parser of what somebody else wrote. `test/fuzz/NAME/` has its program. */
export interface Fuzzer {
  readonly name: string
  /** Longest input in bytes. Short ones find more per second; this is what the format needs to say anything. */
  readonly maxBytes: number
  /** Inputs of the short run among the tests: all together take a minute. */
  readonly testRuns: number
}

export const FUZZERS: readonly Fuzzer[] = [
  { name: 'vhost-user-message', maxBytes: 600, testRuns: 1_000_000 },
  { name: 'virtqueue', maxBytes: 4200, testRuns: 500_000 },
  { name: 'vsock-packet', maxBytes: 300, testRuns: 250_000 },
  { name: 'connect-line', maxBytes: 80, testRuns: 2_000_000 },
  { name: 'tar', maxBytes: 16_384, testRuns: 120_000 },
  { name: 'layer', maxBytes: 12_288, testRuns: 18_000 },
  { name: 'index', maxBytes: 16_384, testRuns: 50_000 },
  { name: 'initdata', maxBytes: 1200, testRuns: 1_500_000 },
  { name: 'tpm-responses', maxBytes: 300, testRuns: 600_000 },
]
