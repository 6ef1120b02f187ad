/* How Python calls kernels that were compiled ahead: arrays by the buffer protocol, without the interpreter's lock.

   `ahead.py` writes "kernels.h", which says what the kernels take, and links this with them. What numba's code asks of
   its runtime is here too: memory for arrays, and nothing else. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { DIMENSIONS = 3, ARGUMENTS = 24 };

typedef struct {
    void *data;
    int64_t items, itemsize, shape[DIMENSIONS], strides[DIMENSIONS];
} Array;

typedef union {
    Array array;
    double f;
    float x;
    int64_t n;
    uint8_t b;
} Slot;

typedef struct {
    double f[2];
} Given;

/* An array as numba's functions take it. */
#define A1(s) NULL, NULL, (s).array.items, (s).array.itemsize, (s).array.data, (s).array.shape[0], (s).array.strides[0]
#define A2(s)                                                                                                          \
    NULL, NULL, (s).array.items, (s).array.itemsize, (s).array.data, (s).array.shape[0], (s).array.shape[1],           \
        (s).array.strides[0], (s).array.strides[1]
#define A3(s)                                                                                                          \
    NULL, NULL, (s).array.items, (s).array.itemsize, (s).array.data, (s).array.shape[0], (s).array.shape[1],           \
        (s).array.shape[2], (s).array.strides[0], (s).array.strides[1], (s).array.strides[2]
#define T1 void *, void *, int64_t, int64_t, void *, int64_t, int64_t
#define T2 void *, void *, int64_t, int64_t, void *, int64_t, int64_t, int64_t, int64_t
#define T3 void *, void *, int64_t, int64_t, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t

typedef int (*Call)(Slot *, Given *);

/* One of a kernel's functions: for arrays of this dtype ('d', 'f', or 0 where none decides) and this index ('i', 'l' or
   0). One pointer for each level of processor. */
typedef struct {
    char dtype, index;
    Call calls[3];
} Variant;

typedef struct {
    const char *name, *takes;
    int gives, first, count;
} Kernel;

#include "kernels.h"

static int level = -1;

/* The highest level of this processor, by its number in the list of `ahead.py`. */
static int processor_level(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d, kept = 0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_2) || !(c & bit_POPCNT)) return -1;
    int fma = (c & bit_FMA) != 0;
    if (c & bit_OSXSAVE) __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0)); /* the registers that the system keeps */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !fma || !(b & bit_AVX2) || !(b & bit_BMI2)) return 0;
    if ((kept & 0x06) != 0x06) return 0;
    unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    return (b & wide) == wide && (kept & 0xE6) == 0xE6 ? 2 : 1;
#else
    return 0;
#endif
}

static int is_here(int number) { return least[number] <= processor_level(); }

/* What numba's code asks for. A reference counts in the first word. */
typedef struct {
    size_t count;
    void *destroy, *with, *data;
    size_t size;
    void *allocator;
} Memory;

void *NRT_MemInfo_alloc_aligned(size_t size, unsigned align) {
    Memory *memory = malloc(sizeof(Memory) + size + align);
    if (memory) {
        uintptr_t data = ((uintptr_t)(memory + 1) + align - 1) / align * align;
        *memory = (Memory){1, NULL, NULL, (void *)data, size, NULL};
    }
    return memory;
}

void *NRT_MemInfo_alloc(size_t size) { return NRT_MemInfo_alloc_aligned(size, 64); }

/* Only ever asked for an array that is contiguous in C's order, as all are that the kernels make. */
int numba_attempt_nocopy_reshape(int64_t nd, const int64_t *dims, const int64_t *strides, int64_t newnd,
                                 const int64_t *newdims, int64_t *newstrides, int64_t itemsize, int is_f_order) {
    (void)nd, (void)dims, (void)strides, (void)is_f_order;
    for (int64_t i = newnd - 1; i >= 0; --i) {
        newstrides[i] = itemsize;
        itemsize *= newdims[i];
    }
    return 1;
}

void NRT_MemInfo_call_dtor(void *memory) { free(memory); }

/* Parsing. `taken` counts buffers, which are given back in every case. */
typedef struct {
    Slot slots[ARGUMENTS];
    Py_buffer buffers[ARGUMENTS];
    int slot, taken;
    char dtype, index;
    const char *wrong;
} Arguments;

static int is_contiguous(const Py_buffer *b) {
    Py_ssize_t step = b->itemsize;
    for (int i = b->ndim - 1; i >= 0; --i) {
        if (b->shape[i] != 1 && b->strides[i] != step) return b->len == 0;
        step *= b->shape[i];
    }
    return 1;
}

/* 'd', 'f', 'i', 'l' (of 4 and 8 bytes) or '?' for a bool; 0 for all else, and for another byte order. */
static char format_of(const Py_buffer *b) {
    const char *format = b->format;
    const uint16_t one = 1;
    if (*format == '@' || *format == '=' || *format == (*(const uint8_t *)&one ? '<' : '>')) format++;
    if (!*format || format[1]) return 0;
    if (strchr("df?", *format)) return *format;
    if (strchr("ilq", *format)) return b->itemsize == 4 ? 'i' : b->itemsize == 8 ? 'l' : 0;
    return 0;
}

static int take_array(Arguments *a, PyObject *object, char kind, int dimensions, int strided) {
    Py_buffer *b = &a->buffers[a->taken];
    if (PyObject_GetBuffer(object, b, PyBUF_STRIDES | PyBUF_FORMAT)) return -1;
    a->taken++;
    char format = format_of(b);
    char *same = kind == 'x' ? &a->dtype : kind == 'i' ? &a->index : NULL;
    if (same && !*same) *same = format;
    char expected = same ? *same : kind == 'f' ? 'd' : '?';
    if (!format || format != expected || b->ndim != dimensions) {
        a->wrong = "an array is of another dtype or of other dimensions";
        return -1;
    }
    if (!strided && !is_contiguous(b)) {
        a->wrong = "an array is not contiguous";
        return -1;
    }
    Array *array = &a->slots[a->slot++].array;
    *array = (Array){b->buf, b->len / b->itemsize, b->itemsize, {0}, {0}};
    for (int i = 0; i < dimensions; ++i) {
        array->shape[i] = b->shape[i];
        array->strides[i] = b->strides[i];
    }
    return 0;
}

static int take_number(Arguments *a, PyObject *object, char kind) {
    Slot *slot = &a->slots[a->slot++];
    if (kind == 'n') {
        slot->n = PyLong_AsLongLong(object);
    } else if (kind == 'b') {
        int truth = PyObject_IsTrue(object);
        slot->b = truth == 1;
        return truth < 0 ? -1 : 0;
    } else {
        double f = PyFloat_AsDouble(object);
        if (kind == 'x' && a->dtype == 'f') slot->x = (float)f;
        else slot->f = f;
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* The argument that `*takes` describes, which ends behind it. */
static int take(Arguments *a, const char **takes, PyObject *object) {
    if (**takes == '(') {
        Py_ssize_t size = PyTuple_Size(object);
        if (size < 0) return -1;
        (*takes)++;
        for (Py_ssize_t i = 0; i < size; ++i)
            if (take(a, takes, PyTuple_GetItem(object, i))) return -1;
        (*takes)++;
        return 0;
    }
    char kind = *(*takes)++;
    if (**takes < '1' || **takes > '3') return take_number(a, object, kind);
    int dimensions = *(*takes)++ - '0';
    int strided = **takes == 's';
    *takes += strided;
    return take_array(a, object, kind, dimensions, strided);
}

static PyObject *call(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    Arguments a = {.slot = 0, .taken = 0, .dtype = 0, .index = 0, .wrong = NULL};
    PyObject *result = NULL;
    long number = count ? PyLong_AsLong(args[0]) : -1;
    if (number < 0 || number >= KERNELS) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "the number of a kernel is asked for first");
        return NULL;
    }
    const Kernel *kernel = &kernels[number];
    const char *takes = kernel->takes;
    Py_ssize_t at = 1;
    for (; at < count && *takes; ++at)
        if (take(&a, &takes, args[at])) break;
    if (!PyErr_Occurred() && !a.wrong && (at < count || *takes)) a.wrong = "arguments are too few or too many";
    const Variant *variant = NULL;
    if (!PyErr_Occurred() && !a.wrong) {
        for (int i = kernel->first; i < kernel->first + kernel->count && !variant; ++i) {
            const Variant *v = &variants[i];
            if ((!v->dtype || v->dtype == a.dtype) && (!v->index || v->index == a.index)) variant = v;
        }
        if (!variant) a.wrong = "arrays are of a dtype for which it was not compiled";
    }
    if (variant) {
        Given given = {{0, 0}};
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = variant->calls[level](a.slots, &given);
        Py_END_ALLOW_THREADS
        if (status != 0 && status != -2) PyErr_SetString(PyExc_MemoryError, "no memory for what a kernel works with");
        else if (kernel->gives == 2) result = Py_BuildValue("(dd)", given.f[0], given.f[1]);
        else if (kernel->gives == 1) result = PyFloat_FromDouble(given.f[0]);
        else result = Py_NewRef(Py_None);
    }
    for (int i = 0; i < a.taken; ++i) PyBuffer_Release(&a.buffers[i]);
    if (a.wrong && !PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "%s takes (%s): %s", kernel->name, kernel->takes, a.wrong);
    return result;
}

static PyObject *find(PyObject *module, PyObject *name) {
    (void)module;
    PyObject *bytes = PyUnicode_AsUTF8String(name);
    if (!bytes) return NULL;
    long found = -1;
    for (long i = 0; i < KERNELS && found < 0; ++i)
        if (!strcmp(kernels[i].name, PyBytes_AsString(bytes))) found = i;
    Py_DECREF(bytes);
    if (found < 0) return PyErr_Format(PyExc_KeyError, "%R is no kernel", name);
    return PyLong_FromLong(found);
}

/* From the highest level that was compiled and that the processor has. */
static int best_level(int most) {
    for (int i = most; i >= 0; --i)
        if (is_here(i)) return i;
    return -1;
}

static PyObject *use(PyObject *module, PyObject *name) {
    (void)module;
    PyObject *bytes = PyUnicode_AsUTF8String(name);
    if (!bytes) return NULL;
    int found = -1;
    for (int i = 0; i < LEVELS; ++i)
        if (!strcmp(levels[i], PyBytes_AsString(bytes)) && is_here(i)) found = i;
    Py_DECREF(bytes);
    if (found < 0) return PyErr_Format(PyExc_ValueError, "%R was not compiled or is not of this processor", name);
    level = found;
    Py_RETURN_NONE;
}

static PyObject *used(PyObject *module, PyObject *nothing) {
    (void)module, (void)nothing;
    return PyUnicode_FromString(levels[level]);
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL, "Call a kernel by its number."},
    {"index", find, METH_O, "The number of the kernel with this name."},
    {"use", use, METH_O, "Use the kernels of this level of processor."},
    {"used", used, METH_NOARGS, "The level of processor whose kernels are used."},
    {NULL, NULL, 0, NULL},
};

static int begin(PyObject *module) {
    level = best_level(LEVELS - 1);
    if (level < 0) {
        PyErr_SetString(PyExc_ImportError, "the kernels were compiled for another processor");
        return -1;
    }
    return PyModule_AddStringConstant(module, "source", SOURCE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_compiled", "Kernels that were compiled ahead.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
