"""From columns of the lake to features: operations, what they learn, and how they are applied."""

from dtap_dask.features.build import build as build
from dtap_dask.features.fit import Accumulator as Accumulator
from dtap_dask.features.fit import Partial as Partial
from dtap_dask.features.fit import finish as finish
from dtap_dask.features.fit import fit_batches as fit_batches
from dtap_dask.features.fit import merge as merge
from dtap_dask.features.graph import Graph as Graph
from dtap_dask.features.output import planned_dtype as planned_dtype
from dtap_dask.features.registry import NOT_YET as NOT_YET
from dtap_dask.features.registry import STEPS as STEPS
from dtap_dask.features.registry import parse_step as parse_step
from dtap_dask.features.spec import FeatureSpec as FeatureSpec
from dtap_dask.features.state import FittedState as FittedState
from dtap_dask.features.transform import Rows as Rows
from dtap_dask.features.transform import Transform as Transform
