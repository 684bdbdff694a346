/** The Debian packages that the lanes need, each with its reason, and their installation. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { BootstrapError, say } from './say.mjs'

/** `needs`: "build" compiles native code and the guest, "vm" boots VMs, "tenant" plays registry and signs, "test" only tests, "fuzz" only fuzzes. */
export const DEBIAN_PACKAGES = [
  { name: 'g++', needs: 'build', why: 'compiles the native addons, caisson-pod and the guest init' },
  { name: 'libc6-dev', needs: 'build', why: 'headers of the C library, and its static form for the guest init' },
  { name: 'make', needs: 'build', why: 'builds the guest kernel' },
  { name: 'bc', needs: 'build', why: 'builds the guest kernel' },
  { name: 'flex', needs: 'build', why: 'builds the guest kernel (configuration language)' },
  { name: 'bison', needs: 'build', why: 'builds the guest kernel (configuration language)' },
  { name: 'libelf-dev', needs: 'build', why: 'builds the guest kernel (objtool)' },
  { name: 'lz4', needs: 'build', why: 'compresses the guest kernel' },
  { name: 'xz-utils', needs: 'build', why: 'unpacks the kernel source' },
  { name: 'linux-source-6.12', needs: 'build', why: 'source of the guest kernel' },
  {
    name: 'libssl-dev',
    needs: 'build',
    why: 'SHA-256 of the layer pipeline and of the guest init (linked statically)',
  },
  { name: 'libzstd-dev', needs: 'build', why: 'zstd layers (linked statically)' },
  { name: 'zlib1g-dev', needs: 'build', why: 'gzip layers where ISA-L is not (linked statically)' },
  { name: 'libisal-dev', needs: 'build', why: 'gzip layers, more than twice as fast as zlib (loaded at run time)' },
  { name: 'debian-archive-keyring', needs: 'build', why: 'checks the signatures on the packages that enter the guest' },
  { name: 'qemu-system-x86', needs: 'vm', why: 'runs the VMs' },
  { name: 'ovmf', needs: 'vm', why: 'firmware of VMs with measured boot' },
  { name: 'swtpm', needs: 'vm', why: 'software TPM of the platform "tpm"' },
  { name: 'swtpm-tools', needs: 'vm', why: 'makes TPMs with endorsement certificates' },
  { name: 'docker-registry', needs: 'tenant', why: 'the registry of the quickstart and of the tests' },
  { name: 'openssl', needs: 'tenant', why: 'independent check of keys and signatures in tests' },
  { name: 'cryptsetup-bin', needs: 'test', why: 'veritysetup, the independent check of verity trees' },
  { name: 'erofs-utils', needs: 'test', why: 'small root disks for component tests' },
  { name: 'skopeo', needs: 'test', why: 'independent registry client' },
  { name: 'gpg', needs: 'test', why: 'signs images as users of OpenPGP do' },
  { name: 'gpg-agent', needs: 'test', why: 'keeps the keys of gpg' },
  { name: 'umoci', needs: 'test', why: 'independent unpacking of images' },
  { name: 'tpm2-tools', needs: 'test', why: 'independent check of TPM quotes' },
  { name: 'postgresql-15', needs: 'test', why: 'store of verifier replicas; tests start servers of their own' },
  { name: 'softhsm2', needs: 'test', why: 'a PKCS #11 token for the verifier’s store key' },
  { name: 'containerd', needs: 'test', why: 'runs pods over CRI, and is an independent ttrpc peer' },
  { name: 'runc', needs: 'test', why: 'runs a pod of another runtime beside ours' },
  { name: 'containernetworking-plugins', needs: 'test', why: 'makes the networks of pods, as on a node' },
  { name: 'iproute2', needs: 'test', why: 'joins the network of a pod to its VM; nodes need it too' },
  { name: 'crun', needs: 'test', why: 'judges derived container specifications outside a VM' },
  { name: 'clang-14', needs: 'fuzz', why: 'compiles the fuzzers: coverage guidance is clang’s' },
  { name: 'libclang-rt-14-dev', needs: 'fuzz', why: 'libFuzzer and the sanitizers that go with it' },
]

/** Installs what is missing of the packages for `needs`; with `dryRun` only says so. */
export function installDebianPackages({ needs, dryRun }) {
  if (!existsSync('/usr/bin/dpkg-query')) {
    throw new BootstrapError(
      'this is not a Debian system (no dpkg-query)',
      'Caisson is built and tested on Debian bookworm; use a Debian machine or container with root.',
    )
  }
  const missing = DEBIAN_PACKAGES.filter((entry) => needs.includes(entry.needs) && !isInstalled(entry.name))
  if (missing.length === 0) {
    if (dryRun) say('all Debian packages are there')
    return
  }
  say(`${missing.length} Debian packages are missing:`)
  for (const { name, why } of missing) process.stderr.write(`  ${name.padEnd(24)} ${why}\n`)
  if (dryRun) {
    process.stderr.write(
      `install them with: apt-get install --no-install-recommends ${missing.map((entry) => entry.name).join(' ')}\n`,
    )
    return
  }
  install(missing.map((entry) => entry.name))
}

function isInstalled(name) {
  const result = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status}', name], { encoding: 'utf8' })
  return result.status === 0 && result.stdout === 'installed'
}

function install(names) {
  const prefix = process.getuid() === 0 ? [] : ['sudo']
  if (prefix.length > 0 && spawnSync('sudo', ['-V'], { stdio: 'ignore' }).status !== 0) {
    throw new BootstrapError(
      'installing packages needs root, and there is no sudo',
      `As root: apt-get install --no-install-recommends ${names.join(' ')}`,
    )
  }
  const apt = (...args) => {
    const command = [
      ...prefix,
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      'apt-get',
      '-q',
      '-o',
      'DPkg::Lock::Timeout=300',
      ...args,
    ]
    return spawnSync(command[0], command.slice(1), { stdio: ['ignore', 2, 2] }).status === 0
  }
  // An interrupted earlier run may have left packages half configured.
  spawnSync(prefix[0] ?? 'dpkg', prefix.length > 0 ? ['dpkg', '--configure', '-a'] : ['--configure', '-a'], {
    stdio: ['ignore', 2, 2],
  })
  say('installing them (apt-get)')
  if (!apt('update') || !apt('install', '-y', '--no-install-recommends', ...names)) {
    throw new BootstrapError(
      'apt-get could not install the missing packages',
      'Read its output above. linux-source-6.12 is in bookworm-security, bookworm-backports and trixie: enable one of them.',
    )
  }
}
