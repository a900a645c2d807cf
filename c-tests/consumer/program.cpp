/* The same for the original's target, which is for C++17. */
#include <fmi.h>

#include <stdio.h>

#if defined(LEAST_CXX) && __cplusplus < LEAST_CXX
#error "compiled as an older C++ than asked for"
#endif

int main(void)
{
    static const char config[] = "{\"backends\":{\"Memory\":{\"enabled\":true},\"Direct\":{\"enabled\":false}}}";
    fmi_comm *comm;
    int data = 41, result = 0;
    if (fmi_comm_create(0, 1, config, "hello", 128, &comm) != FMI_OK ||
        fmi_allreduce(comm, &data, &result, 1, FMI_INT32, FMI_SUM) != FMI_OK) {
        char text[256];
        fmi_last_error_message(text, sizeof text);
        fprintf(stderr, "%s\n", text);
        return 1;
    }
    fmi_comm_destroy(comm);
    printf("FMI %s: %d\n", fmi_version_string(), result + 1);
    return result == 41 ? 0 : 1;
}
