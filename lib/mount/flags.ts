/** Flags of mount(2) and umount2(2). Source: Linux include/uapi/linux/mount.h. */

export const MS_RDONLY = 1
export const MS_NOSUID = 2
export const MS_NODEV = 4
export const MS_NOEXEC = 8
export const MS_SYNCHRONOUS = 16
export const MS_DIRSYNC = 128
export const MS_NOSYMFOLLOW = 256
export const MS_NOATIME = 1024
export const MS_NODIRATIME = 2048
export const MS_RELATIME = 1 << 21
export const MS_STRICTATIME = 1 << 24
export const MS_LAZYTIME = 1 << 25

export const MNT_DETACH = 2
