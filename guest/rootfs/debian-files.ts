/**
 * Everything of Debian that enters the guest, file by file: an allow-list, so a package's next version cannot bring a
 * program, a set-user-id bit or a configuration along. Libraries are named by the name programs ask for; the link and
 * the file it leads to both enter. There is no shell, no package manager and no documentation.
 */
const LIB = 'usr/lib/x86_64-linux-gnu'

/** Package → paths inside it. */
export const DEBIAN_FILES: Readonly<Record<string, readonly string[]>> = {
  // glibc: names and hosts come from /etc files and DNS, both built into libc.so.6
  libc6: [
    'usr/lib64/ld-linux-x86-64.so.2',
    `${LIB}/libc.so.6`,
    `${LIB}/libm.so.6`,
    // Node was linked before these became part of libc.so.6
    `${LIB}/libdl.so.2`,
    `${LIB}/libpthread.so.0`,
  ],
  'libgcc-s1': [`${LIB}/libgcc_s.so.1`],
  'libstdc++6': [`${LIB}/libstdc++.so.6`],

  // The container runtime
  crun: ['usr/bin/crun'],
  libcap2: [`${LIB}/libcap.so.2`],
  libseccomp2: [`${LIB}/libseccomp.so.2`],
  libsystemd0: [`${LIB}/libsystemd.so.0`],
  libyajl2: [`${LIB}/libyajl.so.2`],

  // Inflates layers twice as fast as zlib; loaded by name, so nothing says that it needs it
  libisal2: [`${LIB}/libisal.so.2`],

  // Makes the file system on the encrypted scratch disk
  e2fsprogs: ['usr/sbin/mke2fs', 'etc/mke2fs.conf'],
  libuuid1: [`${LIB}/libuuid.so.1`],
  libblkid1: [`${LIB}/libblkid.so.1`],
  'libcom-err2': [`${LIB}/libcom_err.so.2`],
  libext2fs2t64: [`${LIB}/libext2fs.so.2`, `${LIB}/libe2p.so.2`],
}

/** What the build runs and the guest has not: mkfs.erofs, fsck.erofs and their libraries. Pinned like the rest. */
export const BUILD_PACKAGES: readonly string[] = [
  'erofs-utils',
  'libdeflate0',
  'liblz4-1',
  'liblzma5',
  'libpcre2-8-0',
  'libselinux1',
  'libxxhash0',
  'libzstd1',
  'zlib1g',
]
