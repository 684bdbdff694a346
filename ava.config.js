// Lanes are folders: test/unit in milliseconds, test/component against real servers, test/e2e boots VMs, test/faults for long.
export default { extensions: ['ts'], files: ['test/**/*.test.ts'], workerThreads: false, timeout: '20m' }
