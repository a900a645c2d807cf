/* fmi.h needs nothing before it, and what it declares can be checked at compile time. */
#include <fmi.h>

#ifdef __cplusplus
#define STATIC_ASSERT(condition) static_assert(condition, #condition)
#else
#define STATIC_ASSERT(condition) _Static_assert(condition, #condition)
#endif

STATIC_ASSERT(FMI_OK == 0);
STATIC_ASSERT(FMI_ERR_ARG == -1);
STATIC_ASSERT(FMI_ERR_INTERNAL == -25);
STATIC_ASSERT(FMI_BYTE == 1 && FMI_DOUBLE == 11);
STATIC_ASSERT(FMI_SUM == 1 && FMI_BXOR == 10);
STATIC_ASSERT(FMI_HINT_CHEAP == 1 && FMI_HINT_FAST == 2);
STATIC_ASSERT(FMI_TIMEOUT_NEVER == UINT32_MAX);
STATIC_ASSERT(sizeof(fmi_status) == 4 && sizeof(fmi_datatype) == 4);
STATIC_ASSERT(sizeof(fmi_op) == 4 && sizeof(fmi_hint) == 4);
STATIC_ASSERT(offsetof(fmi_error_info, struct_size) == 0);
STATIC_ASSERT(offsetof(fmi_error_info, status) == sizeof(size_t));
STATIC_ASSERT(sizeof(((fmi_error_info *)0)->channel) == 32);
STATIC_ASSERT(FMI_VERSION_MAJOR * 1000000 + FMI_VERSION_MINOR * 1000 + FMI_VERSION_PATCH > 0);

#if FMI_ERR_NULL != -2
#error "the constants work in the preprocessor too"
#endif

int main(void)
{
    return 0;
}
