"""``describe-photo`` as an artefact folder: the trunk and the heads on it as one graph, so that one pass gives all.

Knows: what the graph computes, what is compared with the module, what goes onto the card.
Refuses to know: how the heads were trained (models/words/describe.py), colours, places, reading text (tokenizers/), how
folders are written (artefact.py).

The folder holds ``encoder.onnx``, ``classes.txt`` (as that of words-photo), ``said.txt`` (the S words of the part
*said*, one a line, in the order of the graph's output; each is a word of the codebook's vocabulary) and ``card.json``.
The graph is run as those of other artefacts are, by one ``GraphSession`` with the two constants:

    pixels uint8 [batch, 224, 224, 3]; codebook float32 [T, 128]; class_bias float32 [1000]
    -> what int32 [batch, 64], ids of words, best first; what_probabilities float32 [batch, 64];
       said_probabilities float32 [batch, S];
       regions int32 [batch, 5, 8], ids of words, best first, of top, bottom, left, right, centre;
       region_probabilities float32 [batch, 5, 8];
       features float32 [batch, 1280], the trunk's pooled features, for ``embed``

The card is of kind "describe". Beside what every card has (name, vocabulary, codebook, opset, preprocessing, licence,
provenance, data, limits, recipe, metrics, versions, files):

    k_max 64; default_k; features 1280
    said {"file": "said.txt", "words": S}
    regions ["top", "bottom", "left", "right", "centre"]
    parts {"trunk": {"name": "efficientnet-lite0", "hash": ...}} and whole {"encoder.onnx": ...}: the graph is stored
        without the trunk's weights, see tokenizers/parts.py; a reader asks that module for the whole graph's bytes
"""
