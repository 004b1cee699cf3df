"""From columns of the lake to features: operations, what they learn, and how they are applied."""

from dtap_dask.features.engine.fit import Accumulator as Accumulator
from dtap_dask.features.engine.fit import Partial as Partial
from dtap_dask.features.engine.fit import finish as finish
from dtap_dask.features.engine.fit import merge as merge
from dtap_dask.features.engine.transform import Rows as Rows
from dtap_dask.features.engine.transform import Transform as Transform
from dtap_dask.features.graph.build import build as build
from dtap_dask.features.graph.graph import Graph as Graph
from dtap_dask.features.graph.output import planned_dtype as planned_dtype
from dtap_dask.features.graph.spec import FeatureSpec as FeatureSpec
from dtap_dask.features.graph.state import FittedState as FittedState
from dtap_dask.features.steps.registry import STEPS as STEPS
from dtap_dask.features.steps.registry import parse_step as parse_step
