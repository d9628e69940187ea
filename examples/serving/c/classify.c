/* Ask a SavedModel of export_saved_model for labels, through TensorFlow's C API: no Python, and of TensorFlow Text only
 * the libraries that the export named.
 *
 *     TF=$(python -c "import tensorflow as tf; print(tf.sysconfig.get_lib())")
 *     cc classify.c -o classify -I "$TF/include" -L "$TF" -l:libtensorflow_framework.so.2 -l:libtensorflow_cc.so.2 \
 *         -Wl,-rpath,"$TF"
 *     saved_model_cli show --dir MODEL --tag_set serve --signature_def serving_default   # names the three tensors
 *     ./classify MODEL INPUT LABEL PROBABILITY LIBRARY… -- TEXT…
 *
 * It prints a line for each text: its label, the probabilities, the text.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static TF_Status *status;

/* End the program if the last call failed. */
static void check(const char *what) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s: %s\n", what, TF_Message(status));
    exit(1);
  }
}

/* Find a tensor of the graph by its name, "operation:number". */
static TF_Output find(TF_Graph *graph, const char *name) {
  char operation[256];
  int number = 0;
  TF_Output output = {NULL, 0};
  if (sscanf(name, "%255[^:]:%d", operation, &number) >= 1) output.oper = TF_GraphOperationByName(graph, operation);
  if (output.oper == NULL) {
    fprintf(stderr, "%s: the model has no such tensor\n", name);
    exit(1);
  }
  output.index = number;
  return output;
}

/* Copy texts into a tensor of strings (count,). */
static TF_Tensor *strings(char **texts, int64_t count) {
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString *values = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    TF_StringInit(&values[i]);
    TF_StringCopy(&values[i], texts[i], strlen(texts[i]));
  }
  return tensor;
}

int main(int count, char **arguments) {
  int first = 5;
  while (first < count && strcmp(arguments[first], "--") != 0) first++;
  int texts = count - first - 1;
  if (texts < 1) {
    fprintf(stderr, "usage: %s MODEL INPUT LABEL PROBABILITY LIBRARY... -- TEXT...\n", arguments[0]);
    return 2;
  }
  status = TF_NewStatus();
  for (int i = 5; i < first; i++) {
    TF_LoadLibrary(arguments[i], status);
    check(arguments[i]);
  }

  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  check(arguments[1]);

  TF_Output input = find(graph, arguments[2]);
  TF_Output outputs[] = {find(graph, arguments[3]), find(graph, arguments[4])};
  TF_Tensor *fed = strings(&arguments[first + 1], texts), *fetched[2];
  TF_SessionRun(session, NULL, &input, &fed, 1, outputs, fetched, 2, NULL, 0, NULL, status);
  check("run");

  const TF_TString *labels = TF_TensorData(fetched[0]);
  const float *probabilities = TF_TensorData(fetched[1]);
  int64_t classes = TF_Dim(fetched[1], 1);
  for (int i = 0; i < texts; i++) {
    printf("%.*s", (int)TF_StringGetSize(&labels[i]), TF_StringGetDataPointer(&labels[i]));
    for (int64_t k = 0; k < classes; k++) printf("\t%.6f", probabilities[i * classes + k]);
    printf("\t%s\n", arguments[first + 1 + i]);
  }
  return 0;
}
