/* FMI and another library written in Rust (second.rs) in one program: each works, and its panics are its own. */
#include <fmi.h>

#include <stdio.h>
#include <string.h>

int32_t add(int32_t a, int32_t b);
int32_t second_sum(int32_t n);
int32_t second_catches(void);
char *second_text(int32_t number);
void second_free(char *text);

int32_t add(int32_t a, int32_t b)
{
    return a + b;
}

int main(void)
{
    static const char config[] = "{\"backends\":{\"Memory\":{\"enabled\":true},\"Direct\":{\"enabled\":false}}}";
    fmi_comm *comm;
    int data = 41, result = 0;
    char *text = second_text(7);
    if (text == NULL || strcmp(text, "number 7") != 0 || second_sum(4) != 10)
        return 1;
    second_free(text);
    if (fmi_comm_create(0, 1, config, "two", 128, &comm) != FMI_OK || second_catches() != 1 ||
        fmi_allreduce(comm, &data, &result, 1, FMI_INT32, FMI_SUM) != FMI_OK)
        return 2;
    fmi_comm_destroy(comm);
    if (second_catches() != 1)
        return 3;
    printf("FMI %s: %d\n", fmi_version_string(), result + 1);
    return 0;
}
