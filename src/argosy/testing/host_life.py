"""Shell and Python texts that bring a host of `testing.hosts` to life."""

from __future__ import annotations

from typing import Final

#: sshd in the background, as the host's sessions need it.
SSHD_START: Final = (
    "/usr/sbin/sshd -f /dev/null -E /run/sshd.log -o Port=22 -o HostKey=/run/host_key -o UsePAM=no "
    "-o UseDNS=no -o PidFile=/run/sshd.pid -o PermitRootLogin=yes -o StrictModes=no -o MaxStartups=10:30:100 "
    "-o AcceptEnv=LANG {options}"
)

#: Runs as the first process of the new namespaces. Environment: FOLDER of the host, LISTS of the lab, NAME,
#: USER_NAME, PASSWORD, SSHD. The host's disk keeps the overlay of / and the homes.
BOOT_SCRIPT: Final = r"""
set -e
D="$FOLDER/disk"
mkdir -p "$D/upper" "$D/work" "$D/root-home" "$D/homes" "$FOLDER/root"
cd "$FOLDER"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$D/upper,workdir=$D/work" root
R="$FOLDER/root"
mount -t proc proc $R/proc
mount -t sysfs sysfs $R/sys
mount -t tmpfs -o mode=755 tmpfs $R/dev
for n in null zero full random urandom tty; do : > $R/dev/$n; mount --bind /dev/$n $R/dev/$n; done
mkdir $R/dev/pts $R/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts $R/dev/pts
ln -s pts/ptmx $R/dev/ptmx
ln -s /proc/self/fd $R/dev/fd
ln -s fd/0 $R/dev/stdin
ln -s fd/1 $R/dev/stdout
ln -s fd/2 $R/dev/stderr
mount -t tmpfs -o mode=1777 tmpfs $R/dev/shm
mount -t tmpfs -o mode=755 tmpfs $R/run
mkdir -p $R/run/sshd
mount -t tmpfs -o mode=1777 tmpfs $R/tmp
mount --bind "$D/root-home" $R/root
mount --bind "$D/homes" $R/home
mkdir -p $R/shared
mount --bind "$LISTS/shared" $R/shared
umask 022
mkdir -p $R/root/.ssh $R/home/$USER_NAME/.ssh
cp "$LISTS/key.pub" $R/run/lab_key
for h in $R/root $R/home/$USER_NAME; do
  [ -e $h/.ssh/authorized_keys ] || cp "$LISTS/key.pub" $h/.ssh/authorized_keys || true
done
if ! grep -q "^$USER_NAME:" $R/etc/passwd; then
  echo "$USER_NAME:x:7000:7000::/home/$USER_NAME:/bin/bash" >> $R/etc/passwd
  echo "$USER_NAME:x:7000:" >> $R/etc/group
  echo "$USER_NAME:$(openssl passwd -6 "$PASSWORD"):19000:0:99999:7:::" >> $R/etc/shadow
  chown -R 7000:7000 $R/home/$USER_NAME
fi
hostname "$NAME"
echo "$NAME" > $R/etc/hostname || true
cp "$LISTS/hosts" $R/etc/hosts || true
cp "$FOLDER/host_key" "$FOLDER/host_key.pub" $R/run/
chmod 600 $R/run/host_key
cd $R
pivot_root . mnt
cd /
umount -l mnt
unset D R FOLDER LISTS PASSWORD
eval "$SSHD"
while :; do sleep 1000000 & wait; done
"""

#: A `python3` that is the real one, but says that it is 3.6.
OLD_PYTHON: Final = """\
#!/bin/sh
# Options first, as in `python3 -I -S -c CODE`.
while [ "$#" -gt 0 ]; do
  case "$1" in
    -c) code="$2"; shift 2; break ;;
    *) shift ;;
  esac
done
exec {real} -I -S -c 'import collections, sys
V = collections.namedtuple("version_info", "major minor micro releaselevel serial")
sys.version_info = V(3, 6, 8, "final", 0)
exec(sys.argv.pop(1))' "$code" "$@"
"""
