"""What the private cluster looks like: its nodes, partitions and accounts, and Slurm's files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One virtual node. `memory_mb` and `cpus` are what it claims to have."""

    name: str
    cpus: int
    memory_mb: int
    features: str
    gpus: int = 0
    gpu_type: str = ""


NODES = (
    Node(name="gpu-a1", cpus=32, memory_mb=256_000, features="a100,gpu80", gpus=4, gpu_type="a100"),
    Node(name="gpu-a2", cpus=32, memory_mb=256_000, features="a100,gpu80", gpus=4, gpu_type="a100"),
    Node(name="gpu-h1", cpus=64, memory_mb=1_000_000, features="h100", gpus=8, gpu_type="h100"),
    Node(name="gpu-v1", cpus=16, memory_mb=128_000, features="v100", gpus=4, gpu_type="v100"),
    Node(name="gpu-x1", cpus=16, memory_mb=64_000, features="unheard", gpus=2, gpu_type="warp9"),
    Node(name="cpu1", cpus=16, memory_mb=64_000, features="cpuonly"),
    Node(name="cpu2", cpus=16, memory_mb=64_000, features="cpuonly"),
)

PARTITIONS = """\
PartitionName=cpu Nodes=cpu[1-2] Default=YES DefaultTime=00:10:00 MaxTime=1-00:00:00 \
PriorityTier=10 PreemptMode=off State=UP
PartitionName=gpu Nodes=gpu-a1,gpu-a2,gpu-h1 DefaultTime=00:30:00 MaxTime=2-00:00:00 \
PriorityTier=10 PreemptMode=off State=UP
PartitionName=old Nodes=gpu-v1,gpu-x1 DefaultTime=00:30:00 MaxTime=06:00:00 \
PriorityTier=10 PreemptMode=off State=UP
PartitionName=short Nodes=gpu-a1,gpu-a2,gpu-h1,cpu[1-2] DefaultTime=00:01:00 MaxTime=00:10:00 \
PriorityTier=20 PreemptMode=off State=UP
PartitionName=preempt Nodes=gpu-a1,gpu-a2,gpu-h1 DefaultTime=00:30:00 MaxTime=UNLIMITED \
PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 State=UP
"""

ACCOUNTS = (
    ("add", "cluster", "vendomini"),
    ("add", "qos", "high", "set", "Priority=100"),
    ("add", "account", "research", "Description=research", "Organization=research"),
    ("add", "user", "root", "account=research", "DefaultAccount=research"),
    ("modify", "user", "root", "set", "DefaultAccount=research"),
    ("modify", "account", "research", "set", "qos=normal,high", "defaultqos=normal"),
)
"""Words of the sacctmgr commands, in order. Other accounts and QOS are refused by sbatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where one private cluster lives. `node_ports` are in the order of `NODES`."""

    directory: Path
    hostname: str
    controller_port: int
    accounting_port: int
    node_ports: tuple[int, ...]
    max_array_size: int
    first_job_id: int

    def write(self) -> None:
        """Write all files that the daemons read, and make the folders they write to."""
        for folder in ("munge", "state", "log", "dev", "run"):
            (self.directory / folder).mkdir(mode=0o755)
        for node in NODES:
            (self.directory / "spool" / node.name).mkdir(parents=True)
        for index in range(max(node.gpus for node in NODES)):
            # A GPU's file must be a device, or jobs get no CUDA_VISIBLE_DEVICES.
            (self.directory / "dev" / f"gpu{index}").symlink_to("/dev/null")
        (self.directory / "slurm.conf").write_text(self.slurm_conf())
        (self.directory / "gres.conf").write_text(self.gres_conf())
        slurmdbd_conf = self.directory / "slurmdbd.conf"
        slurmdbd_conf.touch(mode=0o600)  # slurmdbd refuses anything wider
        slurmdbd_conf.write_text(self.slurmdbd_conf())

    def slurm_conf(self) -> str:
        """The text of slurm.conf."""
        nodes = "".join(
            f"NodeName={node.name} NodeHostname={self.hostname} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs={node.cpus} Sockets=2 CoresPerSocket={node.cpus // 2} ThreadsPerCore=1"
            f" RealMemory={node.memory_mb} Feature={node.features}"
            + (f" Gres=gpu:{node.gpu_type}:{node.gpus}" if node.gpus else "")
            + " State=UNKNOWN\n"
            for node, port in zip(NODES, self.node_ports, strict=True)
        )
        return SLURM_CONF.format(site=self, types=gpu_tres()) + nodes + PARTITIONS

    def gres_conf(self) -> str:
        """The text of gres.conf; nodes may share device files."""
        return "".join(
            f"NodeName={node.name} Name=gpu Type={node.gpu_type}"
            f" File={self.directory}/dev/gpu[0-{node.gpus - 1}]\n"
            for node in NODES
            if node.gpus
        )

    def slurmdbd_conf(self) -> str:
        """The text of slurmdbd.conf. It finds the database's socket in its environment."""
        return SLURMDBD_CONF.format(site=self)


def gpu_tres() -> str:
    """The kinds of GPU that accounting tells apart."""
    types = sorted({node.gpu_type for node in NODES if node.gpus})
    return ",".join(["gres/gpu", *(f"gres/gpu:{name}" for name in types)])


# cred_expire: a requeued job waits until its old credential has expired, 120 s by default.
# AccountingStoragePass: the way to the accounting daemon does not read AuthInfo.
# DefMemPerCPU: without it a job that asks for no memory takes a whole node's.
# preempt_send_user_signal: a preempted job gets its --signal first, and GraceTime to act on it.
SLURM_CONF = """\
ClusterName=vendomini
SlurmctldHost={site.hostname}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={site.directory}/munge/munge.sock,cred_expire=5
StateSaveLocation={site.directory}/state
SlurmdSpoolDir={site.directory}/spool/%n
SlurmctldPidFile={site.directory}/run/slurmctld.pid
SlurmdPidFile={site.directory}/run/slurmd-%n.pid
SlurmctldLogFile={site.directory}/log/slurmctld.log
SlurmdLogFile={site.directory}/log/slurmd-%n.log
SlurmctldPort={site.controller_port}
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=30
BatchStartTimeout=15
KillWait=3
MinJobAge=300
FirstJobId={site.first_job_id}
MaxArraySize={site.max_array_size}
MaxJobCount=20000
JobRequeue=1
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,bf_continue
PriorityType=priority/multifactor
PriorityWeightPartition=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={site.accounting_port}
AccountingStoragePass={site.directory}/munge/munge.sock
AccountingStorageTRES={types}
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={site.directory}/munge/munge.sock
DbdHost={site.hostname}
DbdAddr=127.0.0.1
DbdPort={site.accounting_port}
SlurmUser=root
LogFile={site.directory}/log/slurmdbd.log
PidFile={site.directory}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_accounting
"""
