"""The form that runs, exports and quantizes: the tensors of a bundle under their names.

One class per component, which the component table names:

    from_reference(network, ...)   all changes to weights, on tensors: joined, folded, laid out anew
    blank(config, tensors)         without values, on the meta device, for stored tensors
    graph(variant)                 the module that computes a graph, with the graph's inputs
    config_type                    the configuration that a weight file's metadata hold
    leaves                         modules that FX calls and does not look into
    tables                         parameters that the run time reads row by row, and no graph

`storage` has the one rule that tells a stored tensor from torch's.
"""
