/* A pretend NVML for tests: what it reports comes from environment variables, so that each test has its own machine.
 *   STUB_COUNT   number of GPUs (-1: the driver is not loaded)
 *   STUB_NAME    their product name         STUB_MIB   their memory
 *   STUB_LINKS   "switch": 18 links each to a switch; "pairs": 4 links between 0-1, 2-3, ...; else none
 *   STUB_LOST    index of a GPU that fell off the bus
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, UNSUPPORTED = 3, NOT_LOADED = 9, LOST = 15 };
typedef struct gpu { int index; } *gpu_t;
static struct gpu gpus[64];

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
    (void)gpu;
    snprintf(text, size, "%s", name ? name : "NVIDIA H100 80GB HBM3");
    return SUCCESS;
}
int nvmlDeviceGetUUID(gpu_t gpu, char *text, unsigned size) {
    snprintf(text, size, "GPU-00000000-aaaa-bbbb-cccc-%012d", gpu->index);
    return SUCCESS;
}
struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(gpu_t gpu, struct memory *memory) {
    memory->total = (unsigned long long)number("STUB_MIB", 81559) << 20;
    memory->used = (unsigned long long)(gpu->index * 1000) << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
struct load { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(gpu_t gpu, struct load *load) {
    load->gpu = gpu->index * 10;
    load->memory = 1;
    return gpu->index == 7 ? UNSUPPORTED : SUCCESS;
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
