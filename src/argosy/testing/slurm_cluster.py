"""A real Slurm for tests, from the packages of the distribution: its own munged, slurmctld and one slurmd
for each
node, in a private folder and on private ports. It stands after about a second and leaves nothing behind.

All nodes are this machine: each has its own slurmd, spool and port, and pretends to have 16 CPUs and GPUs
(files that are called like devices), so that allocations, GRES, shards, steps, preemption, time limits and
lost nodes are the real thing. There is no accounting database.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from argosy.testing.ports import free_port, free_ports

_PROGRAMS: Final = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "sinfo",
    "scontrol",
    "scancel",
)
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_START_LIMIT_S: Final = 30.0

_CONF: Final = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu,shard
ReturnToService=2
SlurmdTimeout=4
SlurmctldTimeout=6
HealthCheckInterval=0
MessageTimeout=5
KillWait=2
MinJobAge={min_job_age_s}
InactiveLimit=0
CommunicationParameters=NoAddrCache
SlurmdParameters=config_overrides
{nodes}
"""

#: Preemption goes from `high` to `low`; `short` has a limit of time, `closed` is for nobody, `tiny` takes
#: two nodes.
_PARTITIONS: Final = """
PartitionName=low Nodes=ALL Default=YES MaxTime=7-00:00:00 DefaultTime=01:00:00 State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=00:01:00 State=UP PriorityTier=1 GraceTime=0
PartitionName=tiny Nodes=ALL MaxTime=01:00:00 MaxNodes=2 State=UP PriorityTier=1
PartitionName=closed Nodes=ALL MaxTime=01:00:00 State=UP AllowGroups=argosy-nobody
"""


def what_is_missing() -> str:
    """Why no Slurm can be started here; "" when one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        packages = "slurmctld slurmd slurm-client munge"
        return f"no {', '.join(missing)} here: `apt-get install --no-install-recommends {packages}`"
    return ""


class SlurmCluster:
    """Started by its constructor; `stop` ends every process of it, also those of jobs.

    `nodes` nodes n1, n2, ... with `gpus` GPUs each of type h100 on the first half and a100 on the others.
    """

    def __init__(
        self, nodes: int = 4, gpus: int = 8, *, min_job_age_s: int = 30, extra_conf: str = ""
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="argosy-slurm-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        self.gpus = gpus
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.home = self.folder / "home"
        self.environ: Mapping[str, str] = {
            "PATH": _PATH,
            "HOME": str(self.home),
            "USER": pwd.getpwuid(os.getuid()).pw_name,
            "LOGNAME": pwd.getpwuid(os.getuid()).pw_name,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = free_ports(nodes + 1)
        atexit.register(self.stop)
        try:
            self._write(min_job_age_s, extra_conf)
            self._start()
        except BaseException:
            self.stop()
            raise

    # -- what tests ask and do ------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True) -> str:
        """The output of one of Slurm's commands, as the cluster's administrator."""
        done = subprocess.run(
            command, env=dict(self.environ), capture_output=True, text=True, timeout=30, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
        """Wait for something that Slurm does by itself."""
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                queue = self.run("squeue", "--states=all", check=False)
                raise AssertionError(f"not within {limit_s:.0f} s: {what}\n{queue}{self.log()}")
            time.sleep(0.02)

    def state(self, job_id: str) -> str:
        """`RUNNING`, `PREEMPTED`, ...; "" when Slurm does not know the job any more."""
        return self.run("squeue", "-h", "--states=all", "-o", "%T", "-j", job_id, check=False).strip()

    def jobs(self) -> dict[str, str]:
        """Ids of jobs that hold or want nodes, by name."""
        lines = self.run("squeue", "-h", "-o", "%j %i").splitlines()
        return {name: job_id for name, _, job_id in (line.partition(" ") for line in lines)}

    def processes(self, job_id: str = "") -> list[int]:
        """Processes of a job, by the environment that Slurm gives them; without an id all of this cluster."""
        wanted = f"SLURM_JOB_ID={job_id}\0" if job_id else f"SLURM_CONF={self.environ['SLURM_CONF']}\0"
        mine = f"SLURM_CONF={self.environ['SLURM_CONF']}\0".encode()
        found = []
        for each in Path("/proc").iterdir():
            if each.name.isdigit() and int(each.name) != os.getpid():
                with contextlib.suppress(OSError):
                    environ = (each / "environ").read_bytes() + b"\0"
                    if wanted.encode() in environ and mine in environ:
                        found.append(int(each.name))
        return found

    def nodes_with(self, job_id: str) -> set[str]:
        """Names of the nodes on which processes of a job run an agent."""
        names = set()
        for pid in self.processes(job_id):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if b"serve" in words:
                    names |= {
                        e.split(b"=", 1)[1].decode() for e in environ if e.startswith(b"SLURMD_NODENAME=")
                    }
        return names

    def kill_node(self, name: str) -> None:
        """The node is gone at once, with all that ran on it."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes()
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                on_it = f"SLURMD_NODENAME={name}\0".encode() in environ + b"\0"
                if on_it or (b"slurmstepd" in line and f"spool.{name}".encode() in line):
                    os.kill(pid, signal.SIGKILL)

    def boot_node(self, name: str) -> None:
        """It is back; Slurm takes it within seconds."""
        self._daemons[name] = self._spawn("slurmd", "-D", "-N", name)

    def stop_controller(self) -> None:
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(20)

    def start_controller(self) -> None:
        self._daemons["slurmctld"] = self._spawn("slurmctld", "-D")
        self.until(lambda: "UP" in self.run("scontrol", "ping", check=False), "the controller answers")

    def clear(self) -> None:
        """End all jobs, so that the next test finds every node idle."""
        self.run("scancel", "--full", "--user", self.environ["USER"], check=False)
        try:
            self.until(lambda: not self.jobs(), "all jobs have ended", limit_s=5.0)
        except AssertionError:
            # Slurm asks again only after half a minute when a daemon's answer got lost: a node that is down
            # has no jobs.
            node = f"NodeName={','.join(self.names)}"
            self.run("scontrol", "update", node, "State=DOWN", "Reason=cleared")
            self.until(lambda: not self.jobs(), "all jobs have ended")
            self.run("scontrol", "update", node, "State=RESUME")
            self.until(self._all_idle, "all nodes are idle")

    def log(self) -> str:
        """The last lines of all daemons."""
        tails = [f"{path.name}: {line}" for path in sorted(self.folder.glob("*.log"))
                 for line in path.read_text("utf-8", "replace").splitlines()[-4:]]  # fmt: skip
        return "\n".join(tails)

    # -- start and end --------------------------------------------------------------------------------------

    def _write(self, min_job_age_s: int, extra_conf: str) -> None:
        for name in ("etc", "state", "home", "dev"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        for index in range(self.gpus):
            _make_device(self.folder / "dev" / f"nvidia{index}")
        host = socket.gethostname()
        half = (len(self.names) + 1) // 2
        lines = []
        gres = [
            f"Name=gpu Type={{}} File={self.folder}/dev/nvidia[0-{self.gpus - 1}]",
            f"Name=shard Count={self.gpus * 4}",
        ]
        gres_lines = []
        for number, name in enumerate(self.names):
            model = "h100" if number < half else "a100"
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 "
                f"Port={self._ports[number + 1]} CPUs=16 "
                f"RealMemory=2000 Gres=gpu:{model}:{self.gpus},shard:{self.gpus * 4} "
                f"Feature={model},ib State=UNKNOWN"
            )
            gres_lines += [f"NodeName={name} {gres[0].format(model)}", f"NodeName={name} {gres[1]}"]
        conf = _CONF.format(
            name="lab", host=host, port=self._ports[0], folder=self.folder, user=self.environ["USER"],
            min_job_age_s=min_job_age_s, nodes="\n".join(lines),
        )  # fmt: skip
        (self.folder / "etc" / "slurm.conf").write_text(conf + _PARTITIONS + extra_conf)
        (self.folder / "etc" / "gres.conf").write_text("\n".join(gres_lines) + "\n")
        (self.folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "daemons.log").open("ab") as log:
            return subprocess.Popen(
                command, env=dict(self.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _start(self) -> None:
        folder = self.folder
        self._daemons["munged"] = self._spawn(
            "munged", "-F", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.sock",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self.until((folder / "munge.sock").exists, "munged listens", _START_LIMIT_S)
        self._daemons["slurmctld"] = self._spawn("slurmctld", "-D", "-i")
        for name in self.names:
            self.boot_node(name)
        self.until(self._all_idle, "all nodes are idle", _START_LIMIT_S)

    def _all_idle(self) -> bool:
        return self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%T", check=False).split() == ["idle"] * len(
            self.names
        )

    def stop(self) -> None:
        atexit.unregister(self.stop)
        for daemon in reversed(list(self._daemons.values())):
            daemon.kill()
            daemon.wait()
        self._daemons.clear()
        for _ in range(5):  # what dies may just have started another
            left = self.processes()
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.02)
        self._folder.cleanup()


class LoginNode:
    """An sshd on this machine in whose sessions the commands of a cluster work: its login node.
    `config_file` knows it as `login`."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.folder = cluster.folder / "login"
        self.folder.mkdir(mode=0o700)
        self._cluster = cluster
        self.port = free_port()
        self.config_file = self.folder / "ssh_config"
        for name in ("key", "host_key"):
            self._quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        environ = " ".join(f"{name}={cluster.environ[name]}" for name in ("SLURM_CONF", "HOME"))
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\nSetEnv {environ}\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        )
        host_key = (self.folder / "host_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key[0]} {host_key[1]}\n")
        self.config_file.write_text(
            f"Host login\n  HostName 127.0.0.1\n  Port {self.port}\n  User {cluster.environ['USER']}\n"
            f"  IdentityFile {self.folder}/key\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n"
        )
        self._sshd = self._start()

    def _quietly(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def _start(self) -> subprocess.Popen[bytes]:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            sshd = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._cluster.until(self._answers, "the login node answers", _START_LIMIT_S)
        return sshd

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Log-ins that are there end with it."""
        for pid in _children(self._sshd.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._sshd.kill()
        self._sshd.wait()


def _make_device(path: Path) -> None:
    """Slurm tells programs of devices only when they are character devices; who is not root cannot make
    any."""
    if os.geteuid() == 0:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        path.touch()


def _children(pid: int) -> list[int]:
    """Processes that descend from one."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    found = [int(word) for word in text.split()]
    return [each for child in found for each in (child, *_children(child))]
