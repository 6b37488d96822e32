/* A pretend NVML for tests: what it reports comes from environment variables, so that each test has its own machine.
 *   STUB_COUNT   number of GPUs (-1: the driver is not loaded)
 *   STUB_NAME    their product name         STUB_MIB   their memory
 *   STUB_LINKS   "switch": 18 links each to a switch; "pairs": 4 links between 0-1, 2-3, ...; else none
 *   STUB_LOST    index of a GPU that fell off the bus
 *   STUB_CAPABILITY  compute capability, major      STUB_MODE  compute mode (0 default, 2 prohibited, 3 exclusive process)
 *   STUB_PROCESSES  a file, read anew at each call: lines `CARD PID MIB`
 *   STUB_MIG     a file, read anew at each call: a line `CARD mode` for each card in MIG mode, and a line
 *                `CARD GPU_INSTANCE START SIZE PROFILE MIB` for each instance
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, UNSUPPORTED = 3, NOT_LOADED = 9, LOST = 15 };
typedef struct gpu { int index, instance, start, size, mib; char profile[32]; } *gpu_t;
static struct gpu gpus[64], migs[64];
static int mig_mode[64], mig_count;
static void read_migs(void) {
    const char *path = getenv("STUB_MIG");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[128];
    memset(mig_mode, 0, sizeof mig_mode);
    mig_count = 0;
    while (file && fgets(line, sizeof line, file)) {
        struct gpu *m = &migs[mig_count];
        int card = atoi(line);
        if (strstr(line, "mode")) mig_mode[card] = 1;
        else if (sscanf(line, "%d %d %d %d %31s %d", &m->index, &m->instance, &m->start, &m->size, m->profile, &m->mib) == 6)
            mig_count++;
    }
    if (file) fclose(file);
}
static int is_mig(gpu_t gpu) { return gpu >= migs && gpu < migs + 64; }

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
static int count(void) { return number("STUB_COUNT", 8); }
static int lost(gpu_t gpu) { return gpu->index == number("STUB_LOST", -1); }
static int links(const char *kind) {
    const char *text = getenv("STUB_LINKS");
    return text && !strcmp(text, kind);
}

int nvmlInit_v2(void) {
    for (int i = 0; i < 64; i++) gpus[i].index = i;
    return count() < 0 ? NOT_LOADED : SUCCESS;
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { (void)error; return "stub"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t *gpu) {
    if ((int)index >= count()) return INVALID;
    *gpu = &gpus[index];
    return lost(*gpu) ? LOST : SUCCESS;
}
int nvmlDeviceGetName(gpu_t gpu, char *text, unsigned size) {
    const char *name = getenv("STUB_NAME");
    snprintf(text, size, "%s%s%s", name ? name : "NVIDIA H100 80GB HBM3", is_mig(gpu) ? " MIG " : "", is_mig(gpu) ? gpu->profile : "");
    return SUCCESS;
}
int nvmlDeviceGetUUID(gpu_t gpu, char *text, unsigned size) {
    if (is_mig(gpu)) snprintf(text, size, "MIG-00000000-aaaa-bbbb-%04d-%012d", gpu->index, gpu->instance);
    else snprintf(text, size, "GPU-00000000-aaaa-bbbb-cccc-%012d", gpu->index);
    return SUCCESS;
}
struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(gpu_t gpu, struct memory *memory) {
    memory->total = (unsigned long long)(is_mig(gpu) ? gpu->mib : number("STUB_MIB", 81559)) << 20;
    if (is_mig(gpu)) {
        memory->used = 7 << 20;
        memory->free = memory->total - memory->used;
        return SUCCESS;
    }
    memory->used = (unsigned long long)(gpu->index * 1000) << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
struct load { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(gpu_t gpu, struct load *load) {
    load->gpu = gpu->index * 10;
    load->memory = 1;
    return gpu->index == 7 || is_mig(gpu) ? UNSUPPORTED : SUCCESS;
}
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char text[32]; };
static void pci_of(int index, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = 0xe0 + index;
    sprintf(pci->text, "0000FFFF:%02X:00.0", pci->bus); /* a domain that no real machine has */
}
int nvmlDeviceGetPciInfo_v3(gpu_t gpu, struct pci *pci) { pci_of(gpu->index, pci); return SUCCESS; }
int nvmlDeviceGetNumaNodeId(gpu_t gpu, unsigned *node) { *node = gpu->index / 4; return SUCCESS; }
int nvmlDeviceGetNvLinkState(gpu_t gpu, unsigned link, unsigned *active) {
    (void)gpu;
    if (!links("switch") && !links("pairs")) return UNSUPPORTED;
    if (link >= 18) return INVALID;
    *active = links("switch") || link < 4;
    return SUCCESS;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(gpu_t gpu, unsigned link, int *type) {
    (void)gpu, (void)link;
    *type = links("switch") ? 2 : 0;
    return SUCCESS;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu_t gpu, unsigned link, struct pci *pci) {
    (void)link;
    pci_of(gpu->index ^ 1, pci);
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(gpu_t gpu, int *major, int *minor) {
    (void)gpu;
    *major = number("STUB_CAPABILITY", 9);
    *minor = 0;
    return SUCCESS;
}
int nvmlDeviceGetComputeMode(gpu_t gpu, unsigned *mode) { (void)gpu; *mode = number("STUB_MODE", 0); return SUCCESS; }
int nvmlDeviceGetMigMode(gpu_t gpu, unsigned *current, unsigned *pending) {
    read_migs();
    *current = *pending = mig_mode[gpu->index];
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(gpu_t gpu, unsigned *most) { (void)gpu; *most = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(gpu_t gpu, unsigned index, gpu_t *mig) {
    read_migs();
    for (int i = 0; i < mig_count; i++)
        if (migs[i].index == gpu->index && !index--) return *mig = &migs[i], SUCCESS;
    return 6; /* not found */
}
int nvmlDeviceGetGpuInstanceId(gpu_t mig, unsigned *id) { *id = mig->instance; return is_mig(mig) ? SUCCESS : UNSUPPORTED; }
int nvmlDeviceGetComputeInstanceId(gpu_t mig, unsigned *id) { *id = 0; return is_mig(mig) ? SUCCESS : UNSUPPORTED; }
int nvmlDeviceGetGpuInstanceById(gpu_t gpu, unsigned id, gpu_t *instance) {
    for (int i = 0; i < mig_count; i++)
        if (migs[i].index == gpu->index && migs[i].instance == (int)id) return *instance = &migs[i], SUCCESS;
    return 6;
}
struct instance_info { gpu_t gpu; unsigned id, profile, start, size; };
int nvmlGpuInstanceGetInfo(gpu_t instance, struct instance_info *info) {
    *info = (struct instance_info){&gpus[instance->index], instance->instance, 0, instance->start, instance->size};
    return SUCCESS;
}
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(gpu_t gpu, unsigned *count, struct process *found) {
    const char *path = getenv("STUB_PROCESSES");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned room = *count;
    int card, pid;
    unsigned long long mib;
    *count = 0;
    while (file && *count < room && fscanf(file, "%d %d %llu", &card, &pid, &mib) == 3)
        if (card == gpu->index) found[(*count)++] = (struct process){pid, mib << 20, ~0u, ~0u};
    if (file) fclose(file);
    return SUCCESS;
}
struct work { unsigned pid; unsigned long long at_us; unsigned percent, memory, encoder, decoder; };
int nvmlDeviceGetProcessUtilization(gpu_t gpu, struct work *found, unsigned *count, unsigned long long since) {
    const char *path = getenv("STUB_WORK");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned room = *count, percent;
    int card, pid;
    unsigned long long at_us;
    if (!file) return UNSUPPORTED;
    *count = 0;
    while (*count < room && fscanf(file, "%d %d %u %llu", &card, &pid, &percent, &at_us) == 4)
        if (card == gpu->index && at_us > since) found[(*count)++] = (struct work){pid, at_us, percent, 0, 0, 0};
    fclose(file);
    return SUCCESS;
}
